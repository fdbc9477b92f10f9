"""Text to train on, downloaded as JSON Lines."""
