"""Tools for the machine: processes, worker pools, output of other programs, atomic files, the hub's cache."""
