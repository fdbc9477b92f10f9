"""Our own callbacks. They are added to the built trainer, never to the recipe.

A checkpoint therefore only records NeMo's classes, and loads where nemolaunch is not installed.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


def consumed_samples(trainer: Trainer) -> int:
    """Return the samples consumed since training began, across all restarts, as the checkpoint records it."""
    return int(trainer.datamodule.state_dict()["consumed_samples"])  # type: ignore[attr-defined]


class EvenValidation(Callback):
    """Makes the validation loss the mean over its batches, which all have the same number of samples.

    NeMo leaves the weighting to Lightning, which counts the first batch as one sample and each later one as a
    micro batch, so that the loss would depend on the micro batch size.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wrap the model's `log`, so that validation batches are weighted equally."""
        log = pl_module.log

        def weighted_evenly(name: str, *args: Any, **kwargs: Any) -> None:
            if name == "val_loss":
                kwargs.setdefault("batch_size", 1)
            log(name, *args, **kwargs)

        pl_module.log = weighted_evenly  # type: ignore[method-assign]


class CheckpointSchedule(Callback):
    """Saves checkpoints exactly at the job's interval and at the last step.

    NeMo's callback alone also saves a full copy at every validation, and saves none at the last step if the
    run's length is a multiple of the validation interval.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Turn off checkpoints at validations."""
        checkpoint: Any = trainer.checkpoint_callback
        checkpoint.on_validation_end = lambda *_: None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Correct Lightning's count of completed steps after a resume."""
        # checkpoints are saved before Lightning counts the step as completed; otherwise a resumed run would
        # validate one step late
        progress: Any = trainer.fit_loop.epoch_loop.batch_progress.current
        progress.completed = progress.processed

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the samples consumed at the first step, too."""
        # NeMo does not log this at the very first step, but checkpoints are ranked and named by it
        if "consumed_samples" not in trainer.callback_metrics:
            pl_module.log("consumed_samples", torch.tensor(float(consumed_samples(trainer))), batch_size=1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save a checkpoint, unless the last step already has one."""
        checkpoint: Any = trainer.checkpoint_callback
        if checkpoint._last_global_step_saved == trainer.global_step:
            return
        candidates = checkpoint._monitor_candidates(trainer)
        checkpoint._save_topk_checkpoint(trainer, candidates)
        checkpoint._save_last_checkpoint(trainer, candidates)
