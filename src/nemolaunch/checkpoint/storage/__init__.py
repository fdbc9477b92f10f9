"""Tensors in files: distributed checkpoints, torch.save, safetensors, pickles."""
