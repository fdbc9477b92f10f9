"""What a run spent its time on, which data it saw, and what was said before its start."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass

from nemolaunch.observe.history import History


def severity(kind: str) -> str:
    """`bad`, `warn` or `plain`: how an event is coloured."""
    if kind in ("failed", "not finite", "no progress"):
        return "bad"
    return "plain" if kind in ("restart", "left") else "warn"


def time_spent(history: History) -> list[tuple[str, float]]:
    """(what, seconds) of the time in training, longest first: steps, validation, saving, and the rest."""
    rows = history.series.get("step_time_s")
    if not rows:
        return []
    before, steps = 0, 0.0
    for step, seconds in rows:
        steps += seconds * (step - before)
        before = step
    parts = [("training steps", steps)]
    for key, label in (("validation_s", "validation"), ("checkpoint_s", "saving checkpoints")):
        if key in history.series:
            parts.append((label, sum(history.series[key].values)))
    rest = history.active_s - sum(seconds for _, seconds in parts)
    if rest > 0:
        parts.append(("other, and steps done again", rest))
    return sorted(parts, key=lambda part: -part[1])


def step_times(history: History) -> list[tuple[str, float]]:
    """(what, seconds) of the distribution of step times and of the wait for data."""
    rows = history.series.get("step_time_s")
    if not rows:
        return []
    ordered = sorted(rows.sample())
    last = len(ordered) - 1
    found = [
        (name, ordered[round(last * share)])
        for name, share in (("median", 0.5), ("95 %", 0.95), ("99 %", 0.99))
    ]
    longest = history.series.get("step_time_max_s", rows)
    found.append(("longest", max(longest.values)))
    if "data_wait_s" in history.series:
        found.append(
            ("of the mean, waiting for data", statistics.fmean(history.series["data_wait_s"].values))
        )
    return found


@dataclass(frozen=True, kw_only=True)
class Ingredient:
    """One prefix of a blend: the share asked for, and the share of the samples seen so far that were its."""

    prefix: str
    asked: float | None
    samples: int | None
    achieved: float | None


def mixture(history: History) -> list[Ingredient]:
    """The data, with what was asked for and what was seen."""
    if not history.plan:
        return []
    blend, seen = history.plan.blend, history.samples_by_prefix
    if len(blend) == 1:
        tokens = history.last("tokens")
        samples = None if tokens is None else round(tokens / history.plan.seq_length)
        achieved = 1.0 if samples else None
        return [Ingredient(prefix=blend[0][1], asked=1.0, samples=samples, achieved=achieved)]
    total = sum(weight or 0.0 for weight, _ in blend)
    known = len(seen) == len(blend) and sum(seen) > 0
    return [
        Ingredient(
            prefix=prefix,
            asked=weight / total if weight is not None and total else None,
            samples=seen[i] if known else None,
            achieved=seen[i] / sum(seen) if known else None,
        )
        for i, (weight, prefix) in enumerate(blend)
    ]


def findings(history: History) -> list[str]:
    """What the check said when the run was planned."""
    try:
        saved = json.loads(history.run.plan.read_text(encoding="utf-8")).get("findings", [])
    except (OSError, ValueError):
        return []
    return [str(finding) for finding in saved]
