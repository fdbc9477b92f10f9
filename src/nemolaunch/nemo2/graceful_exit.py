"""Graceful exit: before the time limit, and when asked to, all ranks save together and exit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from nemolaunch.planning import Plan
from nemolaunch.ranks.exit_vote import ExitVote
from nemolaunch.ranks.time_left import CONTINUE, EXIT, SlowestSave


class GracefulExit(Callback):
    """Ends training between two steps, with a checkpoint, if any rank has a reason to.

    Lightning's own signal handlers, which raise in the middle of a step or requeue the job, are replaced.
    """

    def __init__(self, plan: Plan, tell: Callable[..., None]) -> None:
        self._vote = ExitVote(plan, tell)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install the signal handlers, and measure saves from now on if there is a time limit."""
        self._vote.start()
        if self._vote.is_limited:
            time_saves(trainer.checkpoint_callback, self._vote.save, trainer.is_global_zero)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Vote with all other ranks on whether to exit after this step."""
        decision = self._vote.after(
            trainer.global_step, first=trainer.is_global_zero, device=pl_module.device
        )
        if decision == CONTINUE:
            return
        trainer.limit_val_batches = 0  # otherwise Lightning validates before it stops
        trainer.should_stop = True
        if decision == EXIT:
            checkpoint: Any = trainer.checkpoint_callback
            checkpoint._last_global_step_saved = trainer.global_step  # so that none is written at the end
            checkpoint.save_last = None  # nor NeMo's own, if this process has not written one yet


def time_saves(checkpoint: Any, slowest: SlowestSave, writes: bool) -> None:
    """Time all saves of NeMo's checkpoint callback, including asynchronous ones."""
    made: Callable[..., Callable[[], None]] = checkpoint._get_finalize_save_checkpoint_callback

    def timed(*args: Any, **kwargs: Any) -> Callable[[], None]:
        finalize, took = made(*args, **kwargs), slowest.begin(writes)

        def finalized() -> None:
            finalize()
            took()

        return finalized

    checkpoint._get_finalize_save_checkpoint_callback = timed
