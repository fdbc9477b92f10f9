"""Streams: rows of text to samples of tokens, in an order that depends on a seed and a small state."""
