"""What the machine offers: processes, worker pools, other programs' answers, files written atomically."""
