"""Callbacks of ours. They are added to the built trainer, never to the recipe: what a
checkpoint records about itself then names NeMo's classes only, and loads where nemolaunch is not installed."""

from __future__ import annotations

import json
import os
import time
from typing import IO, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from nemolaunch.plan import Plan


class MetricsFile(Callback):
    """Appends one JSON object a line to the run's metrics, on the first rank only.

    Keys: `step` (optimizer steps done), `time` (Unix seconds), `loss` (nats per token, mean over the global
    batch), `lr`, `grad_norm`, `samples` and `tokens` seen since the start of training, `step_time_s` (mean
    since the line before), `tokens_per_s` (over all ranks); or `step`, `time`, `val_loss`; or `event`.
    """

    def __init__(self, plan: Plan) -> None:
        self._path = plan.run.metrics
        self._tokens_per_step = plan.tokens_per_step
        self._seq_length = int(plan.values["seq_length"])
        self._every = int(plan.values["log_every"])
        self._file: IO[str] | None = None
        self._since: tuple[float, int] | None = None

    def _write(self, **row: Any) -> None:
        if self._file is not None:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        _end_torn_line(self._path)
        self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115
        self._since = time.perf_counter(), trainer.global_step
        self._write(event="start", step=trainer.global_step, max_steps=trainer.max_steps, time=time.time())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if self._file is None or (step % self._every and step != trainer.max_steps):
            return
        seen = trainer.callback_metrics
        loss = _number(seen.get("reduced_train_loss"))  # waits for the GPU, so the clock is read after it
        now = time.perf_counter()
        then, at = self._since or (now, step)
        self._since = now, step
        step_time_s = (now - then) / max(1, step - at)
        samples = _consumed_samples(trainer)
        self._write(
            step=step,
            time=time.time(),
            loss=loss,
            lr=_number(seen.get("lr")),
            grad_norm=_number(seen.get("grad_norm")),
            samples=samples,
            tokens=samples * self._seq_length,
            step_time_s=step_time_s,
            tokens_per_s=self._tokens_per_step / step_time_s if step_time_s else None,
        )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        value = _number(trainer.callback_metrics.get("val_loss"))
        if value is not None:
            self._write(step=trainer.global_step, time=time.time(), val_loss=value)
        self._since = time.perf_counter(), trainer.global_step

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(event="end", step=trainer.global_step, time=time.time())
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None


def _end_torn_line(path: os.PathLike[str]) -> None:
    """Close a line that a killed run left half-written, so that ours starts on its own."""
    try:
        with open(path, "rb+") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
    except FileNotFoundError:
        pass


def _consumed_samples(trainer: Trainer) -> int:
    """Samples seen since training began, over all restarts, as the checkpoint records it."""
    return int(trainer.datamodule.state_dict()["consumed_samples"])  # type: ignore[attr-defined]


def _number(value: Any) -> float | None:
    if torch.is_tensor(value):
        return float(value.item())
    return None if value is None else float(value)


class CheckpointSchedule(Callback):
    """Checkpoints when the job says and at the last step, no more and no fewer.

    NeMo's callback alone also writes a full copy at every validation, and writes none at the last step when
    the run's length is a multiple of the validation interval.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        checkpoint: Any = trainer.checkpoint_callback
        checkpoint.on_validation_end = lambda *_: None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # saved before Lightning counts the step as completed; left so, a resumed run validates a step late
        progress: Any = trainer.fit_loop.epoch_loop.batch_progress.current
        progress.completed = progress.processed

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # NeMo leaves this out at the very first step, and checkpoints are ranked and named by it
        if "consumed_samples" not in trainer.callback_metrics:
            pl_module.log("consumed_samples", torch.tensor(float(_consumed_samples(trainer))), batch_size=1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        checkpoint: Any = trainer.checkpoint_callback
        if checkpoint._last_global_step_saved == trainer.global_step:
            return
        candidates = checkpoint._monitor_candidates(trainer)
        checkpoint._save_topk_checkpoint(trainer, candidates)
        checkpoint._save_last_checkpoint(trainer, candidates)
