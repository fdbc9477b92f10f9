"""The comparison of ranks, in NeMo's training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from nemolaunch.ranks import speed
from nemolaunch.ranks.comparison import RankComparison
from nemolaunch.ranks.guards import Notice


class RankWatch(Callback):
    """Compares the ranks of a job with each other, every 50 steps."""

    def __init__(self, notice: Callable[[Notice, int], None]) -> None:
        self._comparison = RankComparison(notice)
        self._data: speed.TimedIterator | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather the hosts of all ranks."""
        self._comparison.start()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Time the data loading."""
        self._data = speed.timed_data(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Compare the ranks, every 50 steps."""
        waited_s = self._data.waited_s if self._data else 0.0
        self._comparison.step(trainer.global_step, waited_s, pl_module.device)
