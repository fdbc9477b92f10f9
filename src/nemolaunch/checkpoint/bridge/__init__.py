"""Megatron-Bridge's checkpoints: `iter_N/` with `run_config.yaml`."""
