"""The steps, by the name they have on the command line. Each has `rows(bench)` and `summary(rows)`."""
