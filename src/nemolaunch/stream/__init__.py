"""Rows of text files to samples of tokens, in an order that is a function of a seed and small positions."""
