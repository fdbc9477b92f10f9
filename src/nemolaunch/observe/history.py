"""What happened in a run: its metrics file as series and events."""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from nemolaunch.errors import NemolaunchError
from nemolaunch.failure import error_records, failure
from nemolaunch.observe.metrics import rows
from nemolaunch.observe.series import Series
from nemolaunch.plan import Plan
from nemolaunch.rundir import RunDir

NOT_SERIES = frozenset({"step", "time", "event", "max_steps", "samples"})


FACTS = frozenset({"flops_per_token", "flops_per_token_causal", "peak_flops"})
NUMBER = (int, float)
MANY_BYTES = 50_000_000  # from here on several files are read in several processes


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A moment worth a line across the charts: `restart`, `not finite` or an event the run wrote."""

    step: int
    kind: str
    text: str


@dataclass
class History:
    """One run, read once.

    Attributes:
        series: by key of the metrics file; steps redone after a restart count once, as redone.
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

    @property
    def last_step(self) -> int:
        """Steps done, as far as the metrics tell."""
        return max((series.steps[-1] for series in self.series.values() if series), default=0)


def read_history(folder: Path, name: str | None = None) -> History:
    """Read a run's folder.

    Raises:
        NemolaunchError: it is no run folder.
    """
    run = RunDir(folder.expanduser().absolute())
    if not run.metrics.exists() and not run.plan.exists():
        wanted = f"{run.plan.name} nor {run.metrics.name}"
        raise NemolaunchError(f"{folder} is not a run folder: it has neither {wanted}")
    plan = Plan.load(run.plan) if run.plan.exists() else None
    history = History(run=run, name=name or run.root.name, plan=plan)
    reader = _Reader(history)
    for row in rows(run.metrics):
        reader.take(row)
    _add_evaluations(history)
    reader.close()
    return history


def read_histories(folders: list[Path]) -> list[History]:
    """Several runs, each under a name that tells it from the others.

    Raises:
        NemolaunchError: one is no run folder, or is named twice.
    """
    absolute = [folder.expanduser().absolute() for folder in folders]
    for folder in absolute:
        if absolute.count(folder) > 1:
            raise NemolaunchError(f"the run {folder} is named twice")
    depth = 1
    while len({folder.parts[-depth:] for folder in absolute}) < len(absolute):
        depth += 1
    names = ["/".join(folder.parts[-depth:]) for folder in absolute]
    if len(absolute) == 1 or sum(_size(folder) for folder in absolute) < MANY_BYTES:
        return [read_history(folder, name) for folder, name in zip(absolute, names, strict=True)]
    workers = min(len(absolute), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(pool.map(read_history, absolute, names))


def _size(folder: Path) -> int:
    try:
        return RunDir(folder).metrics.stat().st_size
    except OSError:
        return 0


def _add_evaluations(history: History) -> None:
    """Figures of evaluated checkpoints as rows, and as series by name."""
    latest = {row["step"]: row for row in rows(history.run.evaluations)}
    for step in sorted(latest):
        row = latest[step]
        history.evaluations.append(row)
        for name, value in evaluation_figures(row).items():
            history.series[name].append(int(step), value)


def evaluation_figures(row: dict[str, Any]) -> dict[str, float]:
    """Name → value of a row of evaluations: `eval_perplexity`, `hellaswag acc_norm`, …"""
    figures: dict[str, float] = {
        key: row[key] for key in ("eval_perplexity", "eval_bits_per_byte") if key in row
    }
    for task, metrics in row.get("tasks", {}).items():
        for metric, value in metrics.items():
            if "_stderr" not in metric and metric not in ("num_fewshot", "num_samples"):
                figures[f"{task} {metric}"] = value
    return {key: float(v) for key, v in figures.items() if isinstance(v, NUMBER) and math.isfinite(v)}


class _Reader:
    """Takes the rows in order and keeps track of starts."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._started: float | None = None
        self._before = 0.0

    def take(self, row: dict[str, Any]) -> None:
        step, moment = int(row["step"]), row.get("time")
        if row.get("event") == "start":
            self._start(row, step)
        if moment is not None:
            self._history.last_time = float(moment)
            if self._started is None:
                self._started = float(moment)
            self._history.elapsed.append(step, self._before + float(moment) - self._started)
            self._history.active_s = self._before + float(moment) - self._started
        event = row.get("event")
        if event is None:
            self._values(row, step)
        elif event != "start":
            self._event(str(event), row, step)

    def _start(self, row: dict[str, Any], step: int) -> None:
        history = self._history
        self._before, self._started = history.active_s, row.get("time")
        history.ended = False
        history.starts += 1
        history.max_steps = int(row.get("max_steps") or 0)
        history.environment = row.get("environment") or {}
        history.facts = {key: v for key, v in row.items() if key in FACTS and v}
        if history.starts == 1:
            return
        done = history.last_step
        redone = f"; steps {step + 1} to {done} were done again" if done > step else ""
        for series in (*history.series.values(), history.elapsed):
            series.cut(step)
        history.marks.append(Mark(step=step, kind="restart", text=f"restarted from step {step}{redone}"))

    def _event(self, kind: str, row: dict[str, Any], step: int) -> None:
        history = self._history
        history.samples_by_prefix = row.get("samples_by_prefix") or history.samples_by_prefix
        if kind == "end":
            history.ended = True
        elif kind == "checkpoint":
            saved = history.series["checkpoint_s"]
            before = saved.values[-1] if saved and saved.steps[-1] == step else 0.0
            saved.append(step, before + float(row.get("seconds") or 0.0))
        else:
            history.marks.append(Mark(step=step, kind=kind, text=str(row.get("text", kind))))

    def _values(self, row: dict[str, Any], step: int) -> None:
        all_series, finite = self._history.series, math.isfinite
        for key, value in row.items():
            if key in NOT_SERIES or type(value) not in NUMBER or not finite(value):
                continue
            series = all_series[key]
            if series.steps and series.steps[-1] >= step:
                series.append(step, value)
            else:  # the same, without a call: this runs for every figure of every step
                series.steps.append(step)
                series.values.append(value)

    def close(self) -> None:
        history = self._history
        history.series = {key: series for key, series in history.series.items() if series}
        if error_records(history.run):
            text = failure(history.run, 1).message
            history.marks.append(Mark(step=history.last_step, kind="failed", text=text))
        try:
            finished = int(json.loads(history.run.finished.read_text(encoding="utf-8"))["step"])
        except (OSError, ValueError, KeyError, TypeError):
            return
        history.ended = history.ended or finished >= history.last_step
