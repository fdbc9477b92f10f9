"""The metrics file of a run, whichever framework trains it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from nemolaunch.planning import Plan
from nemolaunch.ranks import speed
from nemolaunch.ranks.guards import Notice, PaceGuard
from nemolaunch.ranks.log import log
from nemolaunch.ranks.news import news_of
from nemolaunch.ranks.row_file import RowFile, count_attempts
from nemolaunch.ranks.update_check import POLICY_OF, stop
from nemolaunch.run.metrics import ROUTINE_EVENTS

# not rounded
EXACT = frozenset({"loss", "lr", "grad_norm"})
ACCURACY = "val_masked_accuracy"


class StepMetrics:
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

    Attributes:
        skipped: returns the number of updates that a guard has skipped.
        tell_loggers: called with figures and a step, for TensorBoard and other loggers.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._sizes = plan.batch_sizes
        self._every = plan.job.logging.log_every
        self._file: RowFile | None = None
        self._clock = speed.StepClock()
        self._waited_s = 0.0
        self._step = 0
        self.skipped: Callable[[], int] = lambda: 0
        self.tell_loggers: Callable[[dict[str, Any], int], None] = lambda figures, step: None

    @property
    def open(self) -> bool:
        """Whether this process writes the file."""
        return self._file is not None

    def start(self, step: int, vocab_size: int | None) -> None:
        """Open the file, and write the `start` event. To be called on the first rank, at its first step.

        Args:
            vocab_size: of the tokenizer.
        """
        self._compute = speed.compute_of(self._plan, vocab_size)
        self._pace = PaceGuard()
        self._step = step
        restarts = count_attempts(self._plan.run.metrics)
        self._file = RowFile(self._plan.run.metrics)
        flops = self._compute.flops
        self._file.event(
            "start",
            step,
            max_steps=self._plan.max_steps,
            restarts=restarts,
            flops_per_token=flops.full if flops else None,
            flops_per_token_causal=flops.causal if flops else None,
            peak_flops=self._compute.peak_flops,
            environment=speed.environment(),
        )
        self._news = news_of(self._plan, log.info)
        if restarts:
            self._news.tell("restarted", f"restarted from step {step:,} of {self._plan.max_steps:,}")
        self.tell_loggers({"restarts": restarts}, step)
        self._clock = speed.StepClock()

    def event(self, kind: str, step: int, **more: Any) -> None:
        """Append an event; does nothing on ranks other than the first."""
        if self._file is not None:
            self._file.event(kind, step, **more)
            if "text" in more and kind not in ROUTINE_EVENTS:
                self._news.tell(kind, f"{kind} at step {step:,}: {more['text']}")

    def notice(self, notice: Notice, step: int) -> None:
        """Append a guard's warning, and end the run if the policy for it says so.

        Raises:
            GuardStop: the policy for its kind is `stop`.
        """
        self.event(notice.kind, step, text=notice.text)
        policy = POLICY_OF.get(notice.kind)
        if policy is not None and self._plan.job.get(policy) == "stop":
            raise stop(self._plan, notice.kind, step, notice.text)

    def pause(self) -> None:
        """Pause the clock of steps."""
        self._clock.pause()

    def resume(self) -> None:
        """Resume the clock of steps."""
        self._clock.resume()

    def saved(self, step: int, samples_by_prefix: list[int] | None) -> None:
        """Resume the clock after a checkpoint was saved, and write the `checkpoint` event."""
        seconds = self._clock.resume()
        self.event("checkpoint", step, seconds=seconds, samples_by_prefix=samples_by_prefix)
        self.tell_loggers({"checkpoint_s": seconds}, step)
        if self._file is not None:
            self._file.sync()

    def is_due(self, step: int) -> bool:
        """Return whether this step gets a row. If it does not, count its time."""
        if self._file is None:
            return False
        if step % self._every and step != self._plan.max_steps:
            self._clock.step()
            return False
        return True

    def step(
        self,
        step: int,
        *,
        loss: float | None,
        lr: float | None,
        grad_norm: float | None,
        samples: int,
        waited_s: float | None,
    ) -> None:
        """Write a row for a step that is due, and report a slowdown.

        Args:
            waited_s: seconds that this rank has waited for data since its start.
        """
        if self._file is None:
            return
        self._clock.step()
        figures = {"lr": lr, "grad_norm": grad_norm, "samples": samples}
        row: dict[str, Any] = {"step": step, "time": time.time(), "loss": loss}
        row |= self._row(figures, step, step - self._step, waited_s)
        self._step = step
        self._file.write(**row)
        self.tell_loggers(row, step)
        for notice in self._pace.look(row, row.get("global_batch_size", 1)):
            self.notice(notice, step)

    def _row(self, figures: dict[str, Any], step: int, steps: int, waited_s: float | None) -> dict[str, Any]:
        """Return all values but the loss, for the `steps` steps since the previous row."""
        row: dict[str, Any] = {
            **figures,
            "tokens": figures["samples"] * self._plan.seq_length,
            **self._clock.take(),
            "memory_peak_bytes": speed.memory_peak_bytes(),
        }
        if waited_s is not None:
            row["data_wait_s"] = max(0.0, waited_s - self._waited_s) / max(1, steps)
            self._waited_s = waited_s
        if row.get("step_time_s"):
            read = self._sizes.samples(step) - self._sizes.samples(step - steps)
            row["tokens_per_s"] = read / max(1, steps) * self._plan.seq_length / row["step_time_s"]
            row["tokens_per_s_per_gpu"] = row["tokens_per_s"] / self._plan.world_size
            row |= self._compute.figures(row["tokens_per_s"])
        if not self._sizes.constant:
            row["global_batch_size"] = self._sizes.size(step - 1)
        if self.skipped():
            row["skipped_updates"] = self.skipped()
        return {key: _short(key, value) for key, value in row.items()}

    def validated(
        self,
        step: int,
        loss: float | None,
        accuracy: float | None = None,
        sets: Mapping[str, float] | None = None,
    ) -> None:
        """Resume the clock after a validation, and write its row."""
        seconds = self._clock.resume()
        if loss is None or self._file is None:
            return
        row: dict[str, Any] = {"step": step, "time": time.time(), "val_loss": loss, "validation_s": seconds}
        if accuracy is not None:
            row[ACCURACY] = accuracy
        self._file.write(**row, **(sets or {}))
        self.tell_loggers({"val_loss": loss, "validation_s": seconds, **(sets or {})}, step)

    def end(self, step: int, samples_by_prefix: list[int] | None) -> None:
        """Write the `end` event, and close the file."""
        if self._file is not None:
            self.event("end", step, samples_by_prefix=samples_by_prefix)
            self._file.close()
            self._file = None


def _short(key: str, value: Any) -> Any:
    """Round times and speeds to eight digits: more would be noise, and a third of the file."""
    return float(f"{value:.8g}") if isinstance(value, float) and key not in EXACT else value


def samples_by_prefix(dataset: Any, samples: int) -> list[int] | None:
    """Return the samples consumed from each prefix of Megatron's blended dataset; None for any other dataset."""
    order = getattr(dataset, "dataset_index", None)
    if order is None:
        return None
    import numpy as np

    seen = np.bincount(order[:samples], minlength=len(dataset.datasets))
    return [int(count) for count in seen]
