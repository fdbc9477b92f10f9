"""What happened in a run: its metrics file as series and events."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from nemolaunch.observe.series import Series
from nemolaunch.planning import Plan
from nemolaunch.run.folder import RunDir


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A moment worth a line across the charts: `restart`, `failed`, or an event the run wrote."""

    step: int
    kind: str
    text: str


@dataclass
class History:
    """One run, read once.

    Attributes:
        series: by key of the metrics file; steps redone after a restart count once, as redone.
        not_finite: by key, the last step at which the figure was NaN or infinite; series leave those out.
        elapsed: seconds in training up to a step, over all starts; time between them is not counted.
        marks: restarts and the like, in the order they happened.
        active_s: seconds between each start and the last thing heard after it, summed.
        environment: versions and hardware, as of the last start.
        facts: other things the last start wrote: FLOPs per token, the GPU's peak.
        samples_by_prefix: samples seen of each prefix of a blend, in the plan's order.
        evaluations: what `nemolaunch eval watch` found, by step.
        max_steps: the step the run was last told to go to, 0 if it never started.
        last_time: Unix seconds of the last row, None for an empty file.
        ended: whether training said that it was done, after its last start.
    """

    run: RunDir
    name: str
    plan: Plan | None
    series: dict[str, Series] = field(default_factory=lambda: defaultdict(Series))
    not_finite: dict[str, int] = field(default_factory=dict)
    elapsed: Series = field(default_factory=Series)
    marks: list[Mark] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    facts: dict[str, float] = field(default_factory=dict)
    samples_by_prefix: list[int] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    active_s: float = 0.0
    starts: int = 0
    max_steps: int = 0
    last_time: float | None = None
    ended: bool = False

    def last(self, key: str) -> float | None:
        """The latest value of a series, None where there is none."""
        series = self.series.get(key)
        return series.values[-1] if series else None

    def first(self, key: str) -> float | None:
        """The earliest value of a series, None where there is none."""
        series = self.series.get(key)
        return series.values[0] if series else None

    def lost(self, key: str, step: int | None = None) -> bool:
        """Whether a figure was no number any more at the end, or at a step past its last number."""
        series = self.series.get(key)
        known = series.steps[-1] if series else -1
        return self.not_finite.get(key, -1) > known and (step is None or step > known)

    @property
    def last_step(self) -> int:
        """Steps done, as far as the metrics tell."""
        return max((series.steps[-1] for series in self.series.values() if series), default=0)


def evaluation_figures(row: dict[str, Any]) -> dict[str, float]:
    """Name → value of a row of evaluations: `eval_perplexity`, `hellaswag acc_norm`, …"""
    named = ("eval_perplexity", "eval_bits_per_byte", "eval_masked_accuracy", "eval_masked_loss")
    figures: dict[str, float] = {key: row[key] for key in named if key in row}
    for task, metrics in row.get("tasks", {}).items():
        for metric, value in metrics.items():
            if "_stderr" not in metric and metric not in ("num_fewshot", "num_samples"):
                figures[f"{task} {metric}"] = value
    return {key: float(v) for key, v in figures.items() if isinstance(v, (int, float)) and math.isfinite(v)}
