"""Diagnosis of this machine: what it has for training, what is wrong, and how to fix it.

Read-only, except for a temporary file that measures the speed of the disk.
"""
