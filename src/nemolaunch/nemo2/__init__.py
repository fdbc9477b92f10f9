"""The only package that imports NeMo, Megatron, NeMo-Run and Lightning."""
