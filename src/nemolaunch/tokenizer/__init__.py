"""A tokenizer folder: its files, special tokens, fingerprint."""
