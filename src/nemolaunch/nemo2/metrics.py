"""The metrics file of a run, and the same metrics for TensorBoard and W&B."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from nemolaunch.nemo2.callbacks import consumed_samples
from nemolaunch.nemo2.mlm import ACCURACY
from nemolaunch.nemo2.update_guard import POLICY_OF, stop
from nemolaunch.planning import Plan
from nemolaunch.ranks import speed
from nemolaunch.ranks.guards import Notice, PaceGuard
from nemolaunch.ranks.row_file import RowFile, count_attempts

# not rounded
EXACT = frozenset({"loss", "lr", "grad_norm"})
# NeMo already logs these to TensorBoard and W&B
LOGGED_BY_NEMO = frozenset({"loss", "lr", "grad_norm", "step", "time", "samples"})


class MetricsFile(Callback):
    """Appends one JSON object per line to the run's metrics file, on the first rank only.

    A row about steps has `step` (optimizer steps done), `time` (Unix seconds), `loss` (nats per token, mean over
    the global batch), `lr`, `grad_norm`, `samples` and `tokens` consumed since the start of training. For the steps
    since the previous row it has `step_time_s` (mean, without validation and saving), `data_wait_s` (mean seconds
    per step spent waiting for data), `tokens_per_s`, `tokens_per_s_per_gpu`, `tflops_per_gpu` and `mfu` counting full
    attention, and both with `_causal`. For the last 100 steps it has `step_time_p50_s`, `step_time_p95_s` and
    `step_time_max_s`; for this rank since its start `memory_peak_bytes`; and `skipped_updates` since the start, if
    a guard has skipped any.

    A row about validation has `val_loss`, `validation_s` and, for a masked language model, `val_masked_accuracy`,
    the share of masked tokens whose most likely prediction was right. With validation sets, it also has
    `val_loss/NAME` and `val_masked_accuracy/NAME` for each; `val_loss` is that of the first set.

    Where the batch size changes, a row about steps also has `global_batch_size`, that of its last step.

    Every other row has an `event`: `start` (with the number of `restarts` before it), `end`, `checkpoint` (`seconds`
    that training was paused), or the kind of a guard's warning, with a `text`. For a blend, `end` and `checkpoint`
    have `samples_by_prefix`: the number of samples from each prefix, in the plan's order.

    Non-finite values are written as the strings "nan", "inf" and "-inf", which JSON cannot represent as numbers.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._sizes = plan.batch_sizes
        self._every = plan.job.logging.log_every
        self._file: RowFile | None = None
        self._clock = speed.StepClock()
        self._data: speed.TimedIterator | None = None
        self._waited_s = 0.0
        self._step = 0
        self.skipped: Callable[[], int] = lambda: 0
        self.validated: Callable[[], dict[str, float]] = dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the file, and write the `start` event."""
        if not trainer.is_global_zero:
            return
        self._compute = speed.compute_of(self._plan, getattr(pl_module.tokenizer, "vocab_size", None))
        self._pace = PaceGuard()
        self._step = trainer.global_step
        self._time_saving(trainer)
        restarts = count_attempts(self._plan.run.metrics)
        self._file = RowFile(self._plan.run.metrics)
        flops = self._compute.flops
        self._file.event(
            "start",
            trainer.global_step,
            max_steps=trainer.max_steps,
            restarts=restarts,
            flops_per_token=flops.full if flops else None,
            flops_per_token_causal=flops.causal if flops else None,
            peak_flops=self._compute.peak_flops,
            environment=speed.environment(),
        )
        self._tell_loggers(trainer, {"restarts": restarts})
        self._clock = speed.StepClock()

    def event(self, kind: str, step: int, **more: Any) -> None:
        """Append an event, from any callback; does nothing on ranks other than the first."""
        if self._file is not None:
            self._file.event(kind, step, **more)

    def notice(self, notice: Notice, step: int) -> None:
        """Append a guard's warning, and end the run if the policy for it says so.

        Raises:
            GuardStop: the policy for its kind is `stop`.
        """
        self.event(notice.kind, step, text=notice.text)
        if self._plan.job.get(POLICY_OF[notice.kind]) == "stop":
            raise stop(self._plan, notice.kind, step, notice.text)

    def _time_saving(self, trainer: Trainer) -> None:
        checkpoint: Any = trainer.checkpoint_callback
        save: Callable[..., None] | None = getattr(checkpoint, "_save_checkpoint", None)
        if save is None:
            return

        def timed(*args: Any, **kwargs: Any) -> None:
            self._clock.pause()
            try:
                save(*args, **kwargs)
            finally:
                seconds = self._clock.resume()
            seen = samples_by_prefix(trainer)
            self.event("checkpoint", trainer.global_step, seconds=seconds, samples_by_prefix=seen)
            self._tell_loggers(trainer, {"checkpoint_s": seconds})
            if self._file is not None:
                self._file.sync()

        checkpoint._save_checkpoint = timed

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Time the data loading."""
        if self._file is not None:
            self._data = speed.timed_data(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write a row for the step, and report a slowdown."""
        step = trainer.global_step
        if self._file is None:
            return
        if step % self._every and step != trainer.max_steps:
            self._clock.step()
            return
        loss = number(trainer.callback_metrics.get("reduced_train_loss"))  # waits for the GPU
        self._clock.step()
        row = {"step": step, "time": time.time(), "loss": loss, **self._row(trainer, step - self._step)}
        self._step = step
        self._file.write(**row)
        self._tell_loggers(trainer, row)
        for notice in self._pace.look(row, row.get("global_batch_size", 1)):
            self.notice(notice, step)

    def _row(self, trainer: Trainer, steps: int) -> dict[str, Any]:
        """Return all values but the loss, for the `steps` steps since the previous row."""
        seen = trainer.callback_metrics
        samples = consumed_samples(trainer)
        row: dict[str, Any] = {
            "lr": number(seen.get("lr")),
            "grad_norm": number(seen.get("grad_norm")),
            "samples": samples,
            "tokens": samples * self._plan.seq_length,
            **self._clock.take(),
            "memory_peak_bytes": speed.memory_peak_bytes(),
        }
        if self._data is not None:
            row["data_wait_s"] = max(0.0, self._data.waited_s - self._waited_s) / max(1, steps)
            self._waited_s = self._data.waited_s
        if row.get("step_time_s"):
            done = trainer.global_step
            read = self._sizes.samples(done) - self._sizes.samples(done - steps)
            row["tokens_per_s"] = read / max(1, steps) * self._plan.seq_length / row["step_time_s"]
            row["tokens_per_s_per_gpu"] = row["tokens_per_s"] / self._plan.world_size
            row |= self._compute.figures(row["tokens_per_s"])
        if not self._sizes.constant:
            row["global_batch_size"] = self._sizes.size(trainer.global_step - 1)
        if self.skipped():
            row["skipped_updates"] = self.skipped()
        return {key: _short(key, value) for key, value in row.items()}

    def _tell_loggers(self, trainer: Trainer, row: dict[str, Any]) -> None:
        figures = {k: v for k, v in row.items() if k not in LOGGED_BY_NEMO and v is not None}
        for logger in trainer.loggers:
            logger.log_metrics(figures, step=trainer.global_step)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Pause the clock of steps."""
        self._clock.pause()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write a row for the validation."""
        value = number(trainer.callback_metrics.get("val_loss"))
        seconds = self._clock.resume()
        if value is not None and self._file is not None:
            row: dict[str, Any] = {
                "step": trainer.global_step,
                "time": time.time(),
                "val_loss": value,
                "validation_s": seconds,
            }
            accuracy = number(trainer.callback_metrics.get(ACCURACY))
            if accuracy is not None:
                row[ACCURACY] = accuracy
            sets = self.validated()
            self._file.write(**row, **sets)
            self._tell_loggers(trainer, {"validation_s": seconds, **sets})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the `end` event, and close the file."""
        if self._file is not None:
            self.event("end", trainer.global_step, samples_by_prefix=samples_by_prefix(trainer))
            self._file.close()
            self._file = None


def _short(key: str, value: Any) -> Any:
    """Round times and speeds to eight digits: more would be noise, and a third of the file."""
    return float(f"{value:.8g}") if isinstance(value, float) and key not in EXACT else value


def samples_by_prefix(trainer: Trainer) -> list[int] | None:
    """Return the samples consumed from each prefix of a blend; None without a blend, or if this rank has no data."""
    blend: Any = getattr(trainer.datamodule, "_train_ds", None)  # type: ignore[attr-defined]
    order = getattr(blend, "dataset_index", None)
    if order is None:
        return None
    import numpy as np

    seen = np.bincount(order[: consumed_samples(trainer)], minlength=len(blend.datasets))
    return [int(count) for count in seen]


def number(value: Any) -> float | None:
    """Return a logged value as a float; None if there is none."""
    if torch.is_tensor(value):
        return float(value.item())
    return None if value is None else float(value)
