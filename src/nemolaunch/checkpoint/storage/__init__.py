"""Tensors in files: distributed checkpoints, torch.save, safetensors, and pickles."""
