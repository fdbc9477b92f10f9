"""Evaluate checkpoints: scores and generated text. torch and transformers are imported only to load a model."""
