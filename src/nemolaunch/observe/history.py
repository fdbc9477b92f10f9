"""The history of a run: its metrics file as series and events."""

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
    """A moment marked across the charts: `restart`, `failed`, or an event that the run recorded."""

    step: int
    kind: str
    text: str


@dataclass
class Span:
    """One attempt, from the start of its training to its last row.

    Attributes:
        step: steps done before it.
        began, last: Unix seconds of its first and last row.
        times: `step_time_s` of its rows, also of steps that a later attempt repeated.
        waits: `data_wait_s` of the same rows, if they have it.
        validating_s, saving_s: seconds that training was paused for it.
    """

    step: int
    began: float
    last: float
    times: Series = field(default_factory=Series)
    waits: Series = field(default_factory=Series)
    validating_s: float = 0.0
    saving_s: float = 0.0


@dataclass
class History:
    """Everything a run has recorded.

    Attributes:
        series: series by metric name; for steps repeated after a restart, only the later values.
        not_finite: the last step with a NaN or infinite value, by metric name; series omit such values.
        elapsed: seconds of training up to a step, over all attempts; time between attempts does not count.
        marks: restarts and other events in chronological order.
        active_s: seconds from the start of each attempt to its last row, summed.
        environment: versions and hardware of the latest attempt.
        facts: FLOPs per token and the GPU's peak FLOP/s, as recorded by the latest attempt.
        samples_by_prefix: samples consumed from each prefix of a blend, in the plan's order.
        evaluations: rows written by `nemolaunch eval watch`, by step.
        attempts: how often training has started.
        spans: the attempts in order.
        max_steps: the target of the latest attempt, 0 if the run never started.
        last_time: Unix seconds of the last row, None for an empty file.
        ended: whether the latest attempt recorded its own end.
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
    spans: list[Span] = field(default_factory=list)
    active_s: float = 0.0
    attempts: int = 0
    max_steps: int = 0
    last_time: float | None = None
    ended: bool = False

    def last(self, key: str) -> float | None:
        """Return the latest value of a series, None if it is empty."""
        series = self.series.get(key)
        return series.values[-1] if series else None

    def first(self, key: str) -> float | None:
        """Return the earliest value of a series, None if it is empty."""
        series = self.series.get(key)
        return series.values[0] if series else None

    def ends_not_finite(self, key: str, step: int | None = None) -> bool:
        """Return whether a metric is NaN or infinite at the end, or at a step after its last finite value."""
        series = self.series.get(key)
        known = series.steps[-1] if series else -1
        return self.not_finite.get(key, -1) > known and (step is None or step > known)

    @property
    def last_step(self) -> int:
        """Number of completed steps according to the metrics."""
        return max((series.steps[-1] for series in self.series.values() if series), default=0)


def evaluation_figures(row: dict[str, Any]) -> dict[str, float]:
    """Return the figures of an evaluation by name, such as `eval_perplexity` or `hellaswag acc_norm`."""
    named = ("eval_perplexity", "eval_bits_per_byte", "eval_masked_accuracy", "eval_masked_loss")
    figures: dict[str, float] = {key: row[key] for key in named if key in row}
    for task, metrics in row.get("tasks", {}).items():
        for metric, value in metrics.items() if isinstance(metrics, dict) else ():
            if "_stderr" not in metric and metric not in ("num_fewshot", "num_samples"):
                figures[f"{task} {metric}"] = value
    return {key: float(v) for key, v in figures.items() if isinstance(v, (int, float)) and math.isfinite(v)}
