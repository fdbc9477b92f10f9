"""The metrics file of a run, and the same metrics for TensorBoard and W&B."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from nemolaunch.nemo2.callbacks import consumed_samples
from nemolaunch.planning import Plan
from nemolaunch.ranks import speed, step_metrics
from nemolaunch.ranks.guards import Notice
from nemolaunch.ranks.step_metrics import ACCURACY, StepMetrics

# NeMo already logs these to TensorBoard and W&B
LOGGED_BY_NEMO = frozenset({"loss", "val_loss", "lr", "grad_norm", "step", "time", "samples"})


class MetricsFile(Callback):
    """Writes the metrics file on the first rank; `StepMetrics` says what is in it."""

    def __init__(self, plan: Plan) -> None:
        self._metrics = StepMetrics(plan)
        self._data: speed.TimedIterator | None = None
        self.validated: Callable[[], dict[str, float]] = dict

    @property
    def skipped(self) -> Callable[[], int]:
        """Returns the number of updates that a guard has skipped."""
        return self._metrics.skipped

    @skipped.setter
    def skipped(self, count: Callable[[], int]) -> None:
        self._metrics.skipped = count

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the file, and write the `start` event."""
        if not trainer.is_global_zero:
            return

        def tell_loggers(row: dict[str, Any], step: int) -> None:
            figures = {k: v for k, v in row.items() if k not in LOGGED_BY_NEMO and v is not None}
            for logger in trainer.loggers:
                logger.log_metrics(figures, step=step)

        self._metrics.tell_loggers = tell_loggers
        self._time_saving(trainer)
        self._metrics.start(trainer.global_step, getattr(pl_module.tokenizer, "vocab_size", None))

    def event(self, kind: str, step: int, **more: Any) -> None:
        """Append an event, from any callback; does nothing on ranks other than the first."""
        self._metrics.event(kind, step, **more)

    def notice(self, notice: Notice, step: int) -> None:
        """Append a guard's warning, and end the run if the policy for it says so.

        Raises:
            GuardStop: the policy for its kind is `stop`.
        """
        self._metrics.notice(notice, step)

    def _time_saving(self, trainer: Trainer) -> None:
        checkpoint: Any = trainer.checkpoint_callback
        save: Callable[..., None] | None = getattr(checkpoint, "_save_checkpoint", None)
        if save is None:
            return

        def timed(*args: Any, **kwargs: Any) -> None:
            self._metrics.pause()
            try:
                save(*args, **kwargs)
            except BaseException:
                self._metrics.resume()
                raise
            self._metrics.saved(trainer.global_step, samples_by_prefix(trainer))

        checkpoint._save_checkpoint = timed

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Time the data loading."""
        if self._metrics.open:
            self._data = speed.timed_data(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write a row for the step, and report a slowdown."""
        step = trainer.global_step
        if not self._metrics.is_due(step):
            return
        seen = trainer.callback_metrics
        self._metrics.step(
            step,
            loss=number(seen.get("reduced_train_loss")),  # waits for the GPU
            lr=number(seen.get("lr")),
            grad_norm=number(seen.get("grad_norm")),
            samples=consumed_samples(trainer),
            waited_s=self._data.waited_s if self._data is not None else None,
        )

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Pause the clock of steps."""
        self._metrics.pause()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write a row for the validation."""
        seen = trainer.callback_metrics
        loss, accuracy = number(seen.get("val_loss")), number(seen.get(ACCURACY))
        self._metrics.validated(trainer.global_step, loss, accuracy, self.validated())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the `end` event, and close the file."""
        if self._metrics.open:
            self._metrics.end(trainer.global_step, samples_by_prefix(trainer))


def samples_by_prefix(trainer: Trainer) -> list[int] | None:
    """Return the samples consumed from each prefix of a blend; None without a blend, or if this rank has no data."""
    blend: Any = getattr(trainer.datamodule, "_train_ds", None)  # type: ignore[attr-defined]
    return step_metrics.samples_by_prefix(blend, consumed_samples(trainer))


def number(value: Any) -> float | None:
    """Return a logged value as a float; None if there is none."""
    if torch.is_tensor(value):
        return float(value.item())
    return None if value is None else float(value)
