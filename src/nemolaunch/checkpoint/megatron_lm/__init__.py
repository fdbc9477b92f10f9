"""Checkpoints of Megatron-LM's own training loop, `pretrain_gpt.py`: `iter_N/` with the arguments in it."""
