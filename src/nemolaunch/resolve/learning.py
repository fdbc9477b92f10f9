"""Fills in the optimizer's settings and the learning rate schedule."""

from __future__ import annotations

from typing import Any, Protocol

from nemolaunch import arithmetic
from nemolaunch.catalogue import ModelSpec
from nemolaunch.catalogue.optimizer_table import OptimizerDefaults, by_size
from nemolaunch.facts import Facts
from nemolaunch.job import Job
from nemolaunch.resolve.resuming import Earlier

# The settings of the schedule, and those of the optimizer that a checkpoint records beside it
SCHEDULE = (
    "lr", "min_lr", "lr_schedule", "warmup_steps", "decay_steps", "wsd_decay_steps", "wsd_decay_style"
)  # fmt: skip
HYPERPARAMETERS = ("weight_decay", "adam_beta1", "adam_beta2", "adam_eps")


class Filling(Protocol):
    """The job whose values are being filled in, and where they come from."""

    job: Job
    origins: dict[str, str]

    def set(self, name: str, value: Any, origin: str) -> None:
        """Set a field."""

    def replace(self, name: str, by: str, value: Any, origin: str) -> None:
        """Replace the field `name` by the field `by`, which expresses it in another unit."""


def fill(filling: Filling, model: ModelSpec, facts: Facts, before: Earlier | None) -> None:
    """Fill in rates, the schedule's phases and the optimizer's settings. The number of steps must be known."""
    if before is not None and filling.job.checkpoint.resume_schedule == "checkpoint":
        _keep(filling, before)
    defaults = _defaults(filling.job, model, facts)
    _rates(filling, defaults)
    for name in (*HYPERPARAMETERS, "clip_grad"):
        _default(filling, name, getattr(defaults, name), defaults.source)
    _phases(filling, defaults)


def _default(filling: Filling, name: str, value: Any, origin: str) -> None:
    if filling.job.get(name) is None:
        filling.set(name, value, origin)


def _keep(filling: Filling, before: Earlier) -> None:
    """Take over the schedule and the optimizer's settings of the run so far."""
    filling.job = filling.job.with_values(constant_steps=None, warmup_ratio=None)
    for name in (*SCHEDULE, *HYPERPARAMETERS):
        value = before.values.get(name)
        if value is not None:
            filling.set(name, value, "the run so far, by --resume-schedule checkpoint")


def _defaults(job: Job, model: ModelSpec, facts: Facts) -> OptimizerDefaults:
    """Return the recipe's settings for its own architecture; by the number of parameters for any other."""
    if model.source == "NeMo recipe":
        return model.recipe.optimizer
    rows, _ = arithmetic.model_vocab_rows(
        model,
        facts.tokenizer.vocab_size if facts.tokenizer else None,
        max(1, job.parallelism.tensor_model_parallel_size),
    )
    return by_size(arithmetic.parameters(model.architecture, rows).total)


def _rates(filling: Filling, defaults: OptimizerDefaults) -> None:
    _default(filling, "lr", defaults.lr, defaults.source)
    if filling.job.optimizer.min_lr is None:
        share = defaults.min_lr / defaults.lr
        lr = filling.job.optimizer.lr or 0.0
        filling.set("min_lr", float(f"{lr * share:.6g}"), f"{share:.3g} of --lr, as in {_recipe(defaults)}")


def _recipe(defaults: OptimizerDefaults) -> str:
    return defaults.source.removeprefix("as ")


def _phases(filling: Filling, defaults: OptimizerDefaults) -> None:
    """Set when warmup and decay end, in steps."""
    o, steps = filling.job.optimizer, filling.job.batch.max_steps or 0
    if o.constant_steps is not None:
        origin = f"{steps:,} steps - {o.constant_steps:,} at the minimum"
        filling.replace("constant_steps", "decay_steps", steps - o.constant_steps, origin)
    _default(filling, "decay_steps", steps, "--max-steps")
    end = filling.job.optimizer.decay_steps or 0
    if o.warmup_ratio is not None and 0 <= o.warmup_ratio <= 1:
        origin = f"--warmup-ratio {o.warmup_ratio:g} of {steps:,} steps"
        filling.replace("warmup_ratio", "warmup_steps", round(o.warmup_ratio * steps), origin)
    if filling.job.optimizer.warmup_steps is None:
        usual = defaults.warmup_steps or steps // 100
        tenth = max(0, min(end, steps) // 10)
        origin = defaults.source if usual <= tenth else "a tenth of the run"
        filling.set("warmup_steps", min(usual, tenth), origin)
    if o.lr_schedule == "wsd":
        _default(filling, "wsd_decay_steps", max(1, end // 10), "a tenth of --decay-steps")
