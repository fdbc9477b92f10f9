"""What a run folder records of its training: the plan's values under today's names, model, data, tokenizer."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemolaunch import catalogue
from nemolaunch.errors import UsageError
from nemolaunch.job import current_names
from nemolaunch.run.folder import RunDir, read_json
from nemolaunch.run.metrics import tail_rows
from nemolaunch.tokenizer import files
from nemolaunch.tokenizer.fingerprint import tokens_digest

LAST_BYTES = 1 << 14  # of a metrics file, some 25 rows


@dataclass(frozen=True, kw_only=True)
class SavedRun:
    """What the plan of a run says it was trained with; empty where there is no plan, or an older one without it.

    Attributes:
        values: the resolved job, as returned by `Job.values()`.
        architecture: the model's `Architecture` by field name.
        recipe, overrides: what the model was compiled from, and the fields that were set on it.
        blend: (weight or None, prefix) of the data, as passed to Megatron.
        digests: prefix of each data file → digest of its content.
        tokens_digest: identity of the run's copy of its tokenizer, whichever token is the mask.
        tokens_per_s: throughput of its last steps.
    """

    values: dict[str, Any] = field(default_factory=dict)
    architecture: dict[str, Any] = field(default_factory=dict)
    recipe: str | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    blend: tuple[tuple[float | None, str], ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)
    tokens_digest: str | None = None
    tokens_per_s: float | None = None


def saved_run(run: RunDir) -> SavedRun:
    """Return what a run folder records. Never raises: what cannot be read is empty."""
    plan = read_json(run.plan) or {}
    architecture, pairs, digests = plan.get("architecture"), plan.get("blend"), plan.get("digests")
    recipe, overrides = plan.get("recipe"), plan.get("overrides")
    try:
        digest = tokens_digest(run.tokenizer) if files.defines_tokens(run.tokenizer) else None
    except (OSError, ValueError):
        digest = None
    return SavedRun(
        values=saved_values(plan) or {},
        architecture=architecture if isinstance(architecture, dict) else {},
        recipe=recipe if isinstance(recipe, str) else None,
        overrides=overrides if isinstance(overrides, dict) else {},
        blend=tuple((weight, prefix) for weight, prefix in pairs or ()),
        digests=digests if isinstance(digests, dict) else {},
        tokens_digest=digest,
        tokens_per_s=_speed(run.metrics),
    )


def _speed(metrics: Path) -> float | None:
    """Return the median throughput of the rows at the end of a metrics file; None if there are none."""
    speeds = [row["tokens_per_s"] for row in tail_rows(metrics, LAST_BYTES) if row.get("tokens_per_s")]
    return statistics.median(speeds) if speeds else None


def saved_values(plan: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the resolved values of a plan's JSON by field name; None if it has none.

    Plans written before some fields existed get what they stood for: the recipe's epsilon, and a decay that ended
    `constant_steps` before the last step.
    """
    values = plan.get("values")
    if not isinstance(values, dict):
        return None
    values = current_names(values)
    if values.get("decay_steps") is None and isinstance(values.get("max_steps"), int):
        values["decay_steps"] = values["max_steps"] - (values.get("constant_steps") or 0)
        values["constant_steps"] = None
    if "adam_eps" not in values:
        values["adam_eps"] = _recipe_eps(plan.get("recipe"))
    return values


def _recipe_eps(recipe: Any) -> float | None:
    try:
        return catalogue.recipe(str(recipe)).optimizer.adam_eps
    except UsageError:
        return None
