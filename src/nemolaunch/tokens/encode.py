"""From the texts of documents to the arrays that go into `.bin` and `.idx`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Encoded:
    """Tokens of some documents: `tokens` [sum], `lengths` int32 [sequences], `per_document` int32
    [documents]."""

    tokens: Array
    lengths: Array
    per_document: Array


def with_eod(ids: Array, lengths: Array, document_of: Array, documents: int, eod: int, dtype: str) -> Encoded:
    """End each document with `eod`, in Megatron's way: an empty text is no sequence, an empty document gets
    no EOD.

    `ids` are the ids of all texts in a row, `lengths[i]` those of text i, which belongs to document
    `document_of[i]` (ascending, below `documents`).
    """
    import numpy as np

    filled = np.flatnonzero(lengths)
    owners = document_of[filled]
    sequence_lengths = lengths[filled].astype(np.int64)
    last = np.ones(len(owners), bool)
    last[:-1] = owners[1:] != owners[:-1]
    sequence_lengths += last
    ends = np.cumsum(sequence_lengths)[last] - 1
    tokens = np.empty(len(ids) + len(ends), np.dtype(dtype))
    free = np.ones(len(tokens), bool)
    free[ends] = False
    tokens[free] = ids
    tokens[ends] = eod
    per_document = np.bincount(owners, minlength=documents).astype(np.int32)
    return Encoded(tokens, sequence_lengths.astype(np.int32), per_document)
