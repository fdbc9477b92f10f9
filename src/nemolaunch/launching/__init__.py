"""Plan to running job: on this machine, on Slurm, on a cluster behind SSH."""
