"""The learning rate of each step: a function of the schedule and the step alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nemolaunch.job.training import STYLES, WSD_DECAY_STYLES

__all__ = ["STYLES", "WSD_DECAY_STYLES", "Schedule", "schedule_of"]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A learning rate schedule: linear warmup to `lr`, then a decay to `min_lr` that ends at step `decay_steps`.

    The decay follows Megatron's `OptimizerParamScheduler` (megatron/core/optimizer_param_scheduler.py). The warmup
    is NeMo's (nemo/core/optim/lr_scheduler.py, `WarmupPolicy`), whose first step is not lost at a rate of zero:
    it trains with lr / (warmup_steps + 1).

    Attributes:
        style: one of `STYLES`. `wsd` (warmup, stable, decay) stays at `lr` until `wsd_decay_steps` before the end
            of the decay; `inverse-sqrt` decays with the square root of the step, but not below `min_lr`;
            `constant` ignores `min_lr` and `decay_steps`.
        lr: rate after the warmup.
        min_lr: rate at the end of the decay, and after it.
        warmup_steps: steps before `lr` is reached.
        decay_steps: step at which the decay ends, counted from the start of training.
        wsd_decay_steps: length of the decay of `wsd`.
        wsd_decay_style: one of `WSD_DECAY_STYLES`.
    """

    style: str
    lr: float
    min_lr: float
    warmup_steps: int
    decay_steps: int
    wsd_decay_steps: int = 0
    wsd_decay_style: str = "minus-sqrt"

    def rate(self, step: int) -> float:
        """Return the learning rate of the update after `step` updates: `rate(0)` is that of the first one."""
        if self.warmup_steps > 0 and step <= self.warmup_steps:
            return self.lr * ((step + 1) / (self.warmup_steps + 1))
        if self.style == "constant":
            return self.lr
        if step > self.decay_steps:
            return self.min_lr
        if self.style == "inverse-sqrt":
            return max(self.min_lr, self.lr * math.sqrt(max(self.warmup_steps, 1) / max(step, 1)))
        return (self.lr - self.min_lr) * self._share(step) + self.min_lr

    def _share(self, step: int) -> float:
        """Return which share of the way from `min_lr` to `lr` the rate has at a step of the decay."""
        if self.style == "wsd":
            return self._wsd_share(step)
        done, length = step - self.warmup_steps, self.decay_steps - self.warmup_steps
        if length < 1:
            return 0.0
        return (
            1.0 - done / length if self.style == "linear" else 0.5 * (1.0 + math.cos(math.pi * done / length))
        )

    def _wsd_share(self, step: int) -> float:
        start = self.decay_steps - self.wsd_decay_steps
        if step <= start:
            return 1.0
        done = (step - start) / self.wsd_decay_steps
        if self.wsd_decay_style == "linear":
            return 1.0 - done
        if self.wsd_decay_style == "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * done))
        if self.wsd_decay_style == "exponential":
            return 2.0 * math.pow(0.5, done) - 1.0
        return 1.0 - math.sqrt(done)

    @property
    def sentence(self) -> str:
        """What happens after the warmup, in words: `cosine decay to 3e-05 at step 1,000`."""
        if self.style == "constant":
            return "then constant"
        if self.style == "inverse-sqrt":
            return (
                f"then inverse square root decay, not below {self.min_lr:g}, which it is from step "
                f"{self.decay_steps:,} on"
            )
        if self.style == "wsd":
            start = self.decay_steps - self.wsd_decay_steps
            way = f"{self.wsd_decay_style} decay"
            return f"constant to step {start:,}, then {way} to {self.min_lr:g} at step {self.decay_steps:,}"
        return f"then {self.style} decay to {self.min_lr:g} at step {self.decay_steps:,}"


def schedule_of(values: Mapping[str, Any]) -> Schedule | None:
    """Return the schedule of a resolved job, given by field name; None if its length or rates are not known."""
    steps, lr = values.get("max_steps"), values.get("lr")
    if not steps or lr is None or values.get("min_lr") is None:
        return None
    end = values.get("decay_steps")
    return Schedule(
        style=values.get("lr_schedule") or "cosine",
        lr=lr,
        min_lr=values["min_lr"],
        warmup_steps=values.get("warmup_steps") or 0,
        decay_steps=steps - (values.get("constant_steps") or 0) if end is None else end,
        wsd_decay_steps=values.get("wsd_decay_steps") or 0,
        wsd_decay_style=values.get("wsd_decay_style") or "minus-sqrt",
    )
