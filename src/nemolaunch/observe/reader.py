"""Read the rows of a metrics file into the history of a run.

A run of a month has a million rows, so consecutive rows with the same keys are processed in bulk, key by key.
"""

from __future__ import annotations

import math
from array import array
from itertools import groupby
from operator import lt
from pathlib import Path
from typing import Any

from nemolaunch.errors import NemolaunchError
from nemolaunch.observe.ending import ending
from nemolaunch.observe.history import History, Mark, Span, evaluation_figures
from nemolaunch.observe.series import Series
from nemolaunch.planning import Plan
from nemolaunch.run.folder import RunDir
from nemolaunch.run.metrics import ROUTINE_EVENTS, UPLOAD, batches, rows
from nemolaunch.system.json_files import read_json

NOT_FINITE = ("nan", "inf", "-inf")  # spelling in the metrics file
NOT_SERIES = frozenset({"step", "time", "event", "max_steps", "samples", "tokens_per_s_per_gpu"})
FACTS = frozenset({"flops_per_token", "flops_per_token_causal", "peak_flops"})
NUMBER = (int, float)
MIN_BULK_ROWS = 8  # fewer are faster one by one


def read_history(folder: Path, name: str | None = None) -> History:
    """Read the history of a run from its folder.

    Raises:
        NemolaunchError: the folder is not a run folder.
    """
    run = RunDir(folder.expanduser().absolute())
    if not run.metrics.exists() and not run.plan.exists():
        raise NemolaunchError(
            f"{folder} is not a run folder: it has neither {run.plan.name} nor {run.metrics.name}"
        )
    plan = Plan.of_run(run) if run.plan.exists() else None
    history = History(run=run, name=name or run.root.name, plan=plan)
    reader = _Reader(history)
    for batch in batches(run.metrics):
        reader.take(batch)
    reader.close()
    _add_evaluations(history)
    return history


def _add_evaluations(history: History) -> None:
    """Add the evaluations of checkpoints, as rows and as series by name."""
    latest = {row["step"]: row for row in rows(history.run.evaluations)}
    for step in sorted(latest):
        row = latest[step]
        history.evaluations.append(row)
        for name, value in evaluation_figures(row).items():
            history.series.setdefault(name, Series()).append(int(step), value)


class _Reader:
    """Builds a history from rows in order, tracking the start of each attempt."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._started: float | None = None
        self._earlier_s = 0.0
        self._span: Span | None = None

    def take(self, batch: list[dict[str, Any]]) -> None:
        """Process the next rows; consecutive rows with the same keys in bulk."""
        for keys, group in groupby(batch, tuple):
            same = list(group)
            if len(same) < MIN_BULK_ROWS or "event" in keys or not self._take_bulk(keys, same):
                for row in same:
                    self._take_row(row)

    def _take_bulk(self, keys: tuple[str, ...], batch: list[dict[str, Any]]) -> bool:
        """Process rows of steps key by key, if steps ascend and times are known. Return whether it was possible."""
        columns = dict(zip(keys, zip(*(row.values() for row in batch), strict=True), strict=True))
        steps, times = columns["step"], columns.get("time")
        if self._started is None or times is None or not _all_numbers(times):
            return False
        if not all(map(lt, steps, steps[1:])) or steps[0] <= self._history.last_step:
            return False
        at = array("q", steps)
        for key, values in columns.items():
            if key in NOT_SERIES:
                continue
            series = self._history.series[key]
            if _all_numbers(values):
                series.extend(at, array("d", values))
            else:
                for step, value in zip(steps, values, strict=True):
                    self._add(key, step, value)
        if span := self._span:
            for key, series in (("step_time_s", span.times), ("data_wait_s", span.waits)):
                if key in columns and _all_numbers(columns[key]):
                    series.extend(at, array("d", columns[key]))
            if "validation_s" in columns:
                span.validating_s += math.fsum(filter(_is_number, columns["validation_s"]))
        offset = self._earlier_s - self._started
        self._history.elapsed.extend(at, array("d", [offset + moment for moment in times]))
        self._advance_time(times[-1])
        return True

    def _add(self, key: str, step: int, value: Any) -> None:
        if _is_number(value):
            self._history.series[key].append(step, value)
        elif value in NOT_FINITE:
            self._history.not_finite[key] = step

    def _advance_time(self, moment: float) -> None:
        self._history.last_time = float(moment)
        if self._span:
            self._span.last = max(self._span.last, float(moment))
        if self._started is None:
            self._started = float(moment)
        self._history.active_s = self._earlier_s + float(moment) - self._started

    def _take_row(self, row: dict[str, Any]) -> None:
        step, moment, event = int(row["step"]), row.get("time"), row.get("event")
        if event == "start":
            self._start(row, step)
        if moment is not None and event != UPLOAD:
            self._advance_time(moment)
            self._history.elapsed.append(step, self._history.active_s)
        if event is None:
            for key, value in row.items():
                if key not in NOT_SERIES:
                    self._add(key, step, value)
            self._note(row, step)
        elif event != "start":
            self._event(str(event), row, step)

    def _note(self, row: dict[str, Any], step: int) -> None:
        """Note in the current attempt how long the steps or the validation of a row took."""
        if self._span is None:
            return
        for key, series in (("step_time_s", self._span.times), ("data_wait_s", self._span.waits)):
            if _is_number(row.get(key)):
                series.append(step, float(row[key]))
        if _is_number(row.get("validation_s")):
            self._span.validating_s += float(row["validation_s"])

    def _start(self, row: dict[str, Any], step: int) -> None:
        history = self._history
        self._earlier_s, self._started = history.active_s, row.get("time")
        history.ended = False
        history.attempts += 1
        if self._started is not None:
            self._span = Span(step=step, began=float(self._started), last=float(self._started))
            history.spans.append(self._span)
        history.max_steps = int(row.get("max_steps") or 0)
        history.environment = row.get("environment") or {}
        history.facts = {key: v for key, v in row.items() if key in FACTS and v}
        if history.attempts == 1:
            return
        done = history.last_step
        redone = f", repeating steps {step + 1} to {done}" if done > step else ""
        for series in (*history.series.values(), history.elapsed):
            series.cut(step)
        history.not_finite = {key: last for key, last in history.not_finite.items() if last <= step}
        history.marks.append(Mark(step=step, kind="restart", text=f"restarted from step {step}{redone}"))

    def _event(self, kind: str, row: dict[str, Any], step: int) -> None:
        history = self._history
        history.samples_by_prefix = row.get("samples_by_prefix") or history.samples_by_prefix
        if kind == "end":
            history.ended = True
        elif kind == "checkpoint":
            saved = history.series["checkpoint_s"]
            before = saved.values[-1] if saved and saved.steps[-1] == step else 0.0
            seconds = float(row.get("seconds") or 0.0)
            saved.append(step, before + seconds)
            if self._span:
                self._span.saving_s += seconds
        elif kind not in ROUTINE_EVENTS:
            history.marks.append(Mark(step=step, kind=kind, text=str(row.get("text", kind))))

    def close(self) -> None:
        """Complete the history after the last row."""
        history = self._history
        history.series = {key: series for key, series in history.series.items() if series}
        finished = _finished_step(history.run)
        if finished is not None and finished >= history.last_step:
            history.ended = True
        elif end := ending(history.run):
            history.marks.append(Mark(step=history.last_step, kind=end.state, text=end.detail))


def _finished_step(run: RunDir) -> int | None:
    try:
        return int(read_json(run.finished)["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _all_numbers(values: tuple[Any, ...]) -> bool:
    """Return whether every value is a finite number, quickly if so."""
    try:
        return all(map(math.isfinite, values)) and bool not in map(type, values)
    except TypeError:
        return False


def _is_number(value: Any) -> bool:
    return type(value) in NUMBER and math.isfinite(value)
