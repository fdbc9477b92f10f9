"""Training data as it is described: blends, streams of rows, Megatron's index header, masking."""
