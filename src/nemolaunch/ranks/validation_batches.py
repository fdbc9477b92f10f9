"""The batches of a validation set: the same samples at every validation, split over ranks as in training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import default_collate

# Orders the samples of a set, independently of the seed of the run, so that runs can be compared
SEED = 1234


class Batches:
    """The micro batches of this rank, from the first samples of a set.

    Not a `DataLoader`: its iterators draw from the random numbers that dropout on a CPU uses, too.

    Args:
        samples: how many samples of the set are evaluated.
        rank: among the `ranks` that are data parallel.
    """

    def __init__(self, dataset: Any, samples: int, micro_batch_size: int, *, rank: int, ranks: int) -> None:
        self._dataset, self._samples, self._micro_batch = dataset, samples, micro_batch_size
        self._rank, self._ranks = rank, ranks

    def __len__(self) -> int:
        return self._samples // (self._micro_batch * self._ranks)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for number in range(len(self)):
            start = (number * self._ranks + self._rank) * self._micro_batch
            yield default_collate([self._dataset[i] for i in range(start, start + self._micro_batch)])
