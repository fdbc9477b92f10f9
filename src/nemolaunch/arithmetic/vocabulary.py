"""Rows of a model's embedding, even if its tokenizer is not known yet."""

from __future__ import annotations

from nemolaunch.arithmetic.batch import vocab_rows
from nemolaunch.catalogue import ModelSpec
from nemolaunch.catalogue.vocabulary import published_vocabulary


def model_vocab_rows(
    model: ModelSpec, tokenizer_vocab_size: int | None, tensor_parallel: int = 1
) -> tuple[int, str]:
    """Return the rows of the model's embedding, padded, and where the number comes from.

    Without a preset and a tokenizer, falls back to the vocabulary that the model was published with.
    """
    if model.architecture.vocab_size is not None:
        return vocab_rows(model.architecture, None, tensor_parallel), "the model's preset"
    if tokenizer_vocab_size is not None:
        return vocab_rows(model.architecture, tokenizer_vocab_size, tensor_parallel), "the tokenizer"
    published = published_vocabulary(model.name, model.recipe.name)
    where = f"{published:,} entries as published (no tokenizer given)"
    return vocab_rows(model.architecture, published, tensor_parallel), where
