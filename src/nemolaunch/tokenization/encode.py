"""From the texts of documents to the arrays of `.bin` and `.idx`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Encoded:
    """Encoded documents: `tokens` [sum], `lengths` int32 [sequences], `per_document` int32 [documents]."""

    tokens: Array
    lengths: Array
    per_document: Array


def with_eod(ids: Array, lengths: Array, texts_of: list[int] | None, eod: int, dtype: str) -> Encoded:
    """End each document with `eod` as Megatron does: empty texts are no sequences, empty documents get none.

    Args:
        ids: concatenated ids of all texts.
        lengths: number of ids of each text.
        texts_of: number of texts of each document; None: one each.
    """
    import numpy as np

    if texts_of is None and lengths.all():
        sequence_lengths = lengths + 1
        ends = np.cumsum(sequence_lengths) - 1
        per_document = np.ones(len(lengths), np.int32)
    else:
        owners = np.repeat(np.arange(len(texts_of or lengths)), texts_of or 1)
        filled = np.flatnonzero(lengths)
        owners_filled = owners[filled]
        last = np.ones(len(filled), bool)
        last[:-1] = owners_filled[1:] != owners_filled[:-1]
        sequence_lengths = lengths[filled] + last
        ends = np.cumsum(sequence_lengths)[last] - 1
        per_document = np.bincount(owners_filled, minlength=len(texts_of or lengths)).astype(np.int32)
    tokens = np.empty(len(ids) + len(ends), np.dtype(dtype))
    free = np.ones(len(tokens), bool)
    free[ends] = False
    tokens[free] = ids
    tokens[ends] = eod
    return Encoded(tokens, sequence_lengths.astype(np.int32), per_document)
