"""Training data: blends, streams of rows, Megatron's index header, masking."""
