"""Fills in the optimizer's settings and the learning rate schedule."""

from __future__ import annotations

import functools

from nemolaunch.catalogue import ModelSpec
from nemolaunch.catalogue.optimizer_table import OptimizerDefaults, by_size
from nemolaunch.facts import Facts
from nemolaunch.job import Job
from nemolaunch.resolve.filling import Filling, parameters_of
from nemolaunch.resolve.resuming import CHANGEABLE, HYPERPARAMETERS, SCHEDULE, Earlier


def fill(filling: Filling, model: ModelSpec, facts: Facts, before: Earlier | None) -> None:
    """Fill in rates, the schedule's phases and the optimizer's settings. The number of steps must be known."""
    if before is not None and filling.job.checkpoint.resume_schedule == "checkpoint":
        _keep(filling, before)
    defaults = _defaults(filling.job, model, facts)
    _rates(filling, defaults)
    for name in CHANGEABLE:
        filling.default(name, functools.partial(getattr, defaults, name), defaults.source)
    _phases(filling, defaults)


def _keep(filling: Filling, before: Earlier) -> None:
    """Take over the schedule and the optimizer's settings of the run so far."""
    filling.job = filling.job.with_values(constant_steps=None, warmup_ratio=None)
    for name in (*SCHEDULE, *HYPERPARAMETERS):
        value = before.saved.values.get(name)
        if value is not None:
            filling.set(name, value, "the run so far, by --resume-schedule checkpoint")


def _defaults(job: Job, model: ModelSpec, facts: Facts) -> OptimizerDefaults:
    """Return the recipe's settings for its own architecture; by the number of parameters for any other."""
    if model.source == "NeMo recipe":
        return model.recipe.optimizer
    return by_size(parameters_of(job, model, facts).total)


def _rates(filling: Filling, defaults: OptimizerDefaults) -> None:
    filling.default("lr", lambda: defaults.lr, defaults.source)
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
    filling.default("decay_steps", lambda: steps, "--max-steps")
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
        filling.default("wsd_decay_steps", lambda: max(1, end // 10), "a tenth of --decay-steps")
