"""What this machine has for training, what does not fit, and what to type. Reads; writes one file to time the disk."""
