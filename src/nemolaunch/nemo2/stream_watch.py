"""Between the steps of a run on streams: check whether there is another step, and save the stream's state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer

from nemolaunch.nemo2.stream_data import StreamDataModule
from nemolaunch.planning import Plan
from nemolaunch.ranks import speed
from nemolaunch.ranks.stream_steps import StreamSteps


class StreamWatch(Callback):
    """Ends training with all ranks together, with a checkpoint, where a rank has no samples for another step.

    Attributes:
        steps: decides that.
    """

    def __init__(self, plan: Plan, event: Callable[..., None]) -> None:
        self.steps = StreamSteps(plan, event)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the session, and wait for the samples of the first step."""
        self.steps.begin(_data(trainer).source, trainer.global_step)
        self._look(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Wait for the samples of the next step."""
        self._look(trainer, pl_module)

    def _look(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step >= trainer.max_steps or trainer.should_stop:
            return
        before = self.steps.waited_s
        if not self.steps.go_on(_data(trainer).source, trainer.global_step, pl_module.device):
            trainer.should_stop = True
        timed = speed.timed_data(trainer)
        if timed is not None:
            timed.waited_s += self.steps.waited_s - before
        if self.steps.error:  # raised once the checkpoint is written
            trainer.limit_val_batches = 0

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the stream's state to the checkpoint, and report what was read."""
        data, strategy = _data(trainer), cast(Any, trainer.strategy)
        values = data.source.state(trainer.global_step, strategy.root_device)
        checkpoint[type(data).__qualname__]["stream"] = values
        self.steps.saved(data.source, values, trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Flush the ledger."""
        feed = _data(trainer).source.feed
        assert feed is not None
        feed.sync()


def _data(trainer: Trainer) -> StreamDataModule:
    return cast(StreamDataModule, trainer.datamodule)  # type: ignore[attr-defined]
