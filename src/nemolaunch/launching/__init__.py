"""Turn a plan into a running job: on this machine, on Slurm, or on a cluster over SSH."""
