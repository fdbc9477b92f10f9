"""The model inputs made from a sample of a stream: for next-token prediction, or with masked tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nemolaunch.data.masking import Masking
from nemolaunch.ranks import documents
from nemolaunch.ranks.masked_data import as_bert, masked
from nemolaunch.stream.order import Array

# Maps a sample's ids, int32 [seq_length + 1], and its number in the run to its fields, each [seq_length].
Fields = Callable[[Array, int], dict[str, Any]]


def next_token(tokens: Array, number: int) -> dict[str, Any]:
    """Return the fields for next-token prediction, as Megatron's `GPTDataset` makes them."""
    ids = torch.from_numpy(tokens.astype(np.int64))
    length = len(ids) - 1
    return {
        "tokens": ids[:-1],
        "labels": ids[1:],
        "loss_mask": torch.ones(length),
        "position_ids": torch.arange(length),
    }


@dataclass(frozen=True)
class DocumentFields:
    """Makes the fields for next-token prediction on documents that do not depend on each other.

    Attributes:
        end: id that ends documents.
        separate: whether tokens attend to their own document only.
        restart: whether positions restart with each document.
        mask_loss: whether the predictions from the ends of documents are left out of the loss.
    """

    end: int
    separate: bool = False
    restart: bool = False
    mask_loss: bool = False

    def __call__(self, tokens: Array, number: int) -> dict[str, Any]:
        """Return the fields of a sample, as Megatron's `GPTDataset` and `DocumentDataset` make them."""
        sample = next_token(tokens, number)
        ids = sample["tokens"]
        if self.mask_loss:
            sample["loss_mask"] = (ids != self.end).float()
        if self.restart:
            sample["position_ids"] = documents.positions(ids, self.end)
        return {**sample, **documents.packed(ids, self.end)} if self.separate else sample


class MaskedTokens:
    """Makes the fields for a masked language model.

    The number of a sample keeps counting across epochs and restarts, so a text is masked differently each time it is
    seen, but identically after a restart.
    """

    def __init__(self, masking: Masking, *, validation: bool, bert: bool) -> None:
        self._masking, self._validation, self._bert = masking, validation, bert

    def __call__(self, tokens: Array, number: int) -> dict[str, Any]:
        """Return the fields of a sample with that number, masked."""
        sample = masked(next_token(tokens, number), self._masking, number=number, validation=self._validation)
        return as_bert(sample) if self._bert else sample
