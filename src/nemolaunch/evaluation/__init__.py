"""Checkpoints → text and scores. torch and transformers are imported when a model is loaded, not before."""
