"""What a model gets of a sample of a stream: for the next token, or with tokens masked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from nemolaunch.data.masking import Masking
from nemolaunch.ranks.masked_data import as_bert, masked
from nemolaunch.stream.order import Array

# From a sample's ids, int32 [seq_length + 1], and its number in the run, to its fields, each [seq_length].
Fields = Callable[[Array, int], dict[str, Any]]


def next_token(tokens: Array, number: int) -> dict[str, Any]:
    """For a model that predicts the next token, as Megatron's `GPTDataset` makes it."""
    ids = torch.from_numpy(tokens.astype(np.int64))
    length = len(ids) - 1
    return {
        "tokens": ids[:-1],
        "labels": ids[1:],
        "loss_mask": torch.ones(length),
        "position_ids": torch.arange(length),
    }


class MaskedTokens:
    """For a masked language model. The number of a sample counts on over epochs and restarts, so that a text is
    masked anew each time it is seen, and the same again after a restart."""

    def __init__(self, masking: Masking, *, validation: bool, bert: bool) -> None:
        self._masking, self._validation, self._bert = masking, validation, bert

    def __call__(self, tokens: Array, number: int) -> dict[str, Any]:
        sample = masked(next_token(tokens, number), self._masking, number=number, validation=self._validation)
        return as_bert(sample) if self._bert else sample
