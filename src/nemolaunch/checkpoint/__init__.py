"""Checkpoints on disk: reading their contents, and converting them to other formats."""
