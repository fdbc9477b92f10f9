"""Meta's checkpoints of Llama models."""
