"""Which values of a plan follow from others, and are computed again when one of those changes."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from nemolaunch.job import spec_of
from nemolaunch.planning.plan import Plan

LENGTH = frozenset(
    {
        "max_steps",
        "max_tokens",
        "tokens_per_param",
        "global_batch_size",
        "global_batch_tokens",
        "rampup_batch_size",
        "seq_length",
    }
)
# (fields, fields that are computed from them unless they are given)
DEPENDENT = (
    (LENGTH, ("decay_steps", "wsd_decay_steps", "warmup_steps", "val_check_interval", "limit_val_batches")),
    (frozenset({"decay_steps", "constant_steps"}), ("wsd_decay_steps", "warmup_steps")),
    (frozenset({"lr_schedule"}), ("decay_steps", "wsd_decay_steps", "warmup_steps", "min_lr")),
    (frozenset({"lr"}), ("min_lr",)),
    (frozenset({"resume_schedule"}), ("decay_steps",)),
)
# A field that was given → the one it was converted to
CONVERTED = {"warmup_ratio": "warmup_steps", "constant_steps": "decay_steps"}
GIVEN = ("flag", "file ", "plan ", "preset ", "cluster ")


def open_values(plan: Plan, changed: Collection[str] | None = None) -> dict[str, Any]:
    """Return the values to compute again if these fields change, or any field, as they were before planning.

    Without this, a run extended to 400 steps would keep the decay and the validation interval of its first 200.
    """
    names = {
        name for sources, found in DEPENDENT if changed is None or sources & set(changed) for name in found
    }
    names &= _computed(plan)
    values = {name: spec_of(name).default for name in names}
    values |= {name: value for name, value in plan.converted.items() if CONVERTED.get(name) in names}
    return values


def _computed(plan: Plan) -> set[str]:
    """Return the fields that were not given. Plans before 0.3 do not list them, but have origins."""
    if plan.computed:
        return set(plan.computed)
    computed = {name for name, origin in plan.origins.items() if not origin.startswith(GIVEN)}
    return computed if "constant_steps" in plan.origins else computed | {"decay_steps"}
