"""The accuracy on masked tokens in a validation, in whichever framework."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Group = Callable[[], Any]


class MaskedAccuracy:
    """Counts masked tokens whose most likely prediction is the original token.

    It hooks into the place where Megatron turns logits into losses, in the last pipeline stage.

    Args:
        tensor_group: returns the group of tensor parallel ranks, each of which has the logits of a part of the
            vocabulary.
    """

    def __init__(self, tensor_group: Group) -> None:
        self._group = tensor_group
        self._listening = False
        self._right: Tensor | None = None
        self._counts: Tensor | None = None

    def listen_to(self, model: Any) -> None:
        """Read the logits of this language model, [sequence, batch, vocabulary/TP], before they become losses."""
        loss = model.compute_language_model_loss

        def compute_language_model_loss(labels: Tensor, logits: Tensor, *args: Any, **kwargs: Any) -> Any:
            if self._listening:
                self._right = most_likely(logits, self._group()).transpose(0, 1) == labels
            return loss(labels, logits, *args, **kwargs)

        model.compute_language_model_loss = compute_language_model_loss

    def start(self) -> None:
        """Begin a validation."""
        self._listening, self._counts = True, None

    def count(self, predicted: Tensor) -> None:
        """Count the last micro batch's tokens for which `predicted` [batch, sequence] is not 0."""
        if self._listening and self._right is not None:
            chosen = predicted.reshape(self._right.shape) > 0
            counts = torch.stack([(self._right & chosen).sum(), chosen.sum()])
            self._counts = counts if self._counts is None else self._counts + counts

    def stop(self, device: torch.device) -> Tensor:
        """Return the accuracy over all ranks, all of which must call this. Tensor parallel ranks count the same."""
        self._listening = False
        counts = torch.zeros(2, dtype=torch.int64, device=device) if self._counts is None else self._counts
        torch.distributed.all_reduce(counts)
        return counts[0] / counts[1].clamp(min=1)


@torch.no_grad()
def most_likely(logits: Tensor, group: Any) -> Tensor:
    """Return the ids [...] of the largest of logits [..., vocabulary/TP]; the smallest id if several are equal."""
    rows = logits.size(-1)
    best, ids = logits.float().max(dim=-1)
    ids = ids + rows * torch.distributed.get_rank(group)
    everywhere = best.clone()
    torch.distributed.all_reduce(everywhere, op=torch.distributed.ReduceOp.MAX, group=group)
    beyond = torch.iinfo(ids.dtype).max
    ids = torch.where(best == everywhere, ids, beyond)
    torch.distributed.all_reduce(ids, op=torch.distributed.ReduceOp.MIN, group=group)
    return ids
