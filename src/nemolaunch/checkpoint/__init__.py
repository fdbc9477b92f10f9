"""Checkpoints on disk: what a folder holds, and how a new one appears whole or not at all."""
