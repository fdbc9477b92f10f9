"""Flags: from the fields of a job to argparse and back."""
