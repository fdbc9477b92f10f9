"""Kinds of models: what a Hugging Face `config.json` says in NeMo's terms, and how their tensors correspond.

Nothing is imported here: planning needs little of it, and the families are in `registry`.
"""
