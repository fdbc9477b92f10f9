"""The watch for a run that makes no progress, in NeMo's training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from nemolaunch.ranks.progress import ProgressWatch


class HangWatch(Callback):
    """Reports when nothing has finished for a long time, and ends the process at the limit.

    Args:
        timeout_s: the limit in seconds; 0 for no limit.
        tell: called with kind, step and `text`.
    """

    def __init__(self, timeout_s: int, tell: Callable[..., None]) -> None:
        self._watch = ProgressWatch(timeout_s, tell)

    def progress(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Reset the timer: something has finished."""
        self._watch.progress(trainer.global_step)

    on_train_batch_end = progress
    on_validation_batch_end = progress
    on_train_end = progress

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the timer."""
        self._note_saves(trainer)
        self._watch.start(first=trainer.is_global_zero)

    def _note_saves(self, trainer: Trainer) -> None:
        checkpoint: Any = trainer.checkpoint_callback
        save = checkpoint._save_checkpoint

        def noted(*args: Any, **kwargs: Any) -> None:
            self._watch.saving = True
            try:
                save(*args, **kwargs)
            finally:
                self._watch.saving = False

        checkpoint._save_checkpoint = noted

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop the timer."""
        self._watch.stop()
