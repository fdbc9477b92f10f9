"""NeMo 2 checkpoints: `weights/` and `context/`."""
