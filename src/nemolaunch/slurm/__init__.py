"""Slurm jobs: what is written for them, handed over, and asked about them."""
