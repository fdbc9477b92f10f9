"""Text files to Megatron `.bin/.idx`: read, tokenise, write, merge, split, inspect, blend."""
