"""The benchmark steps, one module each, with `rows(bench)` and `summary(rows)`."""
