"""What the checkpoints of NeMo 2 and of Megatron-Bridge have in common, since Megatron-Core writes both."""
