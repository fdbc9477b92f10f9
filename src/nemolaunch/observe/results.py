"""What a run achieved, as plain values: for comparisons and for programs."""

from __future__ import annotations

import dataclasses
from typing import Any

from nemolaunch.data.validation_sets import loss_key, set_names
from nemolaunch.observe.goodput import goodput
from nemolaunch.observe.history import History, evaluation_figures
from nemolaunch.observe.reader import read_history
from nemolaunch.observe.report.headline import state
from nemolaunch.run.folder import RunDir
from nemolaunch.run.labels import labels_of


def results(run: RunDir) -> dict[str, float]:
    """Return the latest figures of a run by name: steps, losses, tokens, median speed, evaluations.

    Raises:
        NemolaunchError: the folder is not a run folder.
    """
    return _figures(read_history(run.root, run.root.name))


def report_values(run: RunDir) -> dict[str, Any]:
    """Return what the report says about a run, in values that JSON can hold.

    Raises:
        NemolaunchError: the folder is not a run folder.
    """
    history = read_history(run.root, run.root.name)
    plan, spent = history.plan, goodput(history)
    return {
        "folder": str(run.root),
        "state": state(history),
        "model": plan.model if plan else None,
        **dataclasses.asdict(labels_of(run)),
        "max_steps": history.max_steps or (plan.max_steps if plan else 0),
        "attempts": history.attempts,
        "training_s": history.active_s,
        "goodput": spent.values() if spent else None,
        "results": _figures(history),
        "not_finite": history.not_finite,
        "events": [dataclasses.asdict(mark) for mark in history.marks],
        "evaluations": history.evaluations,
        "environment": history.environment,
        "values": plan.job.values() if plan else {},
    }


def _figures(history: History) -> dict[str, float]:
    names = ("loss", "val_loss", *(loss_key(name) for name in set_names(history.series)))
    found: dict[str, float | None] = {"steps": history.last_step}
    found |= {name: history.last(name) for name in (*names, "val_masked_accuracy", "tokens")}
    if speeds := history.series.get("tokens_per_s"):
        found["tokens_per_s"] = speeds.median()
    if history.evaluations:
        found |= evaluation_figures(history.evaluations[-1])
    return {name: value for name, value in found.items() if value is not None}
