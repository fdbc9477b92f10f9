"""The one metrics file of a run, and the same figures for TensorBoard and W&B."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from nemolaunch.nemo2 import speed
from nemolaunch.nemo2.callbacks import consumed_samples
from nemolaunch.nemo2.guards import Guards
from nemolaunch.plan import Plan

# what NeMo logs to TensorBoard and W&B by itself
LOGGED_BY_NEMO = frozenset({"loss", "lr", "grad_norm", "step", "time", "samples"})


class MetricsFile(Callback):
    """Appends one JSON object a line to the run's metrics, on the first rank only.

    A row of steps has `step` (optimizer steps done), `time` (Unix seconds), `loss` (nats per token, mean over
    the global batch), `lr`, `grad_norm`, `samples` and `tokens` seen since the start of training, and of the
    steps since the row before: `step_time_s` (mean; validation and saving are not in it), `step_time_p50_s`,
    `step_time_p95_s` and `step_time_max_s` where they are several, `data_wait_s` (mean seconds a step waited
    for data), `tokens_per_s` and `tokens_per_s_per_gpu`, `tflops_per_gpu` and `mfu` with full attention
    counted and both with `_causal`, and `memory_peak_bytes` of this rank since its start.

    A row of validation has `val_loss` and `validation_s`. Every other row has an `event`: `start`, `end`,
    `checkpoint` (`seconds` that training stood still), or what a guard saw, with a `text`. Of a blend, `end`
    and `checkpoint` have `samples_by_prefix`: how many samples came from each prefix, in the plan's order.

    What is not finite is written as one of the strings "nan", "inf", "-inf": JSON has no numbers for them.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._every = int(plan.values["log_every"])
        self._file: RowFile | None = None
        self._clock = speed.StepClock()
        self._data: speed.TimedIterator | None = None
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        self._compute = speed.compute_of(self._plan, getattr(pl_module.tokenizer, "vocab_size", None))
        self._guards = Guards()
        self._step = trainer.global_step
        self._time_saving(trainer)
        self._file = RowFile(self._plan.run.metrics)
        flops = self._compute.flops
        self._file.write(
            event="start",
            step=trainer.global_step,
            max_steps=trainer.max_steps,
            time=time.time(),
            flops_per_token=flops.full if flops else None,
            flops_per_token_causal=flops.causal if flops else None,
            peak_flops=self._compute.peak_flops,
            environment=speed.environment(),
        )
        self._clock = speed.StepClock()

    def _event(self, trainer: Trainer, kind: str, **more: Any) -> None:
        if self._file is not None:
            self._file.write(event=kind, step=trainer.global_step, time=time.time(), **more)

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
            self._event(trainer, "checkpoint", seconds=seconds, samples_by_prefix=samples_by_prefix(trainer))

        checkpoint._save_checkpoint = timed

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        fetcher: Any = trainer.fit_loop._data_fetcher
        if self._file is not None and fetcher is not None and fetcher.iterator is not self._data:
            self._data = fetcher.iterator = speed.TimedIterator(fetcher.iterator)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
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
        for kind, text in self._guards.seen(row):
            self._file.write(event=kind, step=step, time=row["time"], text=text)
        self._tell_loggers(trainer, row)

    def _row(self, trainer: Trainer, steps: int) -> dict[str, Any]:
        """All but the loss, of the `steps` steps since the row before."""
        seen = trainer.callback_metrics
        samples = consumed_samples(trainer)
        row: dict[str, Any] = {
            "lr": number(seen.get("lr")),
            "grad_norm": number(seen.get("grad_norm")),
            "samples": samples,
            "tokens": samples * int(self._plan.values["seq_length"]),
            **self._clock.take(),
            "memory_peak_bytes": speed.memory_peak_bytes(),
        }
        if self._data is not None:
            row["data_wait_s"] = self._data.waited_s / max(1, steps)
            self._data.waited_s = 0.0
        if row.get("step_time_s"):
            row["tokens_per_s"] = self._plan.tokens_per_step / row["step_time_s"]
            row["tokens_per_s_per_gpu"] = row["tokens_per_s"] / self._plan.world_size
            row |= self._compute.figures(row["tokens_per_s"])
        return row

    def _tell_loggers(self, trainer: Trainer, row: dict[str, Any]) -> None:
        figures = {k: v for k, v in row.items() if k not in LOGGED_BY_NEMO and v is not None}
        for logger in trainer.loggers:
            logger.log_metrics(figures, step=trainer.global_step)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._clock.pause()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        value = number(trainer.callback_metrics.get("val_loss"))
        seconds = self._clock.resume()
        if value is not None and self._file is not None:
            row = {
                "step": trainer.global_step,
                "time": time.time(),
                "val_loss": value,
                "validation_s": seconds,
            }
            self._file.write(**row)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._file is not None:
            self._event(trainer, "end", samples_by_prefix=samples_by_prefix(trainer))
            self._file.close()
            self._file = None


class RowFile:
    """A JSON Lines file that is only appended to, by one writer, a whole line at a time."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        end_torn_line(path)
        self._file: IO[str] = open(path, "a", encoding="utf-8")  # noqa: SIM115

    def write(self, **row: Any) -> None:
        """Append a row; what a crash of this process leaves is whole lines."""
        plain = {
            key: str(v) if isinstance(v, float) and not math.isfinite(v) else v for key, v in row.items()
        }
        self._file.write(json.dumps(plain, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Make sure that it is on the disk."""
        os.fsync(self._file.fileno())
        self._file.close()


def end_torn_line(path: Path) -> None:
    """Close a line that a killed run left half-written, so that ours starts on its own."""
    try:
        with open(path, "rb+") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
    except FileNotFoundError:
        pass


def samples_by_prefix(trainer: Trainer) -> list[int] | None:
    """Samples seen of each prefix of a blend; None without a blend, or where this rank has no data."""
    blend: Any = getattr(trainer.datamodule, "_train_ds", None)  # type: ignore[attr-defined]
    order = getattr(blend, "dataset_index", None)
    if order is None:
        return None
    import numpy as np

    seen = np.bincount(order[: consumed_samples(trainer)], minlength=len(blend.datasets))
    return [int(count) for count in seen]


def number(value: Any) -> float | None:
    """A logged value as a float; None where there is none."""
    if torch.is_tensor(value):
        return float(value.item())
    return None if value is None else float(value)
