"""Slurm jobs: batch scripts, submission, and queries of the queue."""
