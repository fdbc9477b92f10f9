"""What a checkpoint from elsewhere may name: NeMo and Megatron call what it names when they load it."""
