"""Text files to Megatron `.bin/.idx`: reading, tokenising, writing, merging, splitting, inspecting."""
