"""The state of a run and its headline figures."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from nemolaunch.data.validation_sets import loss_key, set_names
from nemolaunch.observe.ending import STOPPED, ending, was_killed_early
from nemolaunch.observe.goodput import goodput
from nemolaunch.observe.history import History
from nemolaunch.observe.report.sections import SavedCheckpoint
from nemolaunch.observe.units import count, duration, losses_of_sets, size, three_digits
from nemolaunch.run.folder import end_step

QUIET_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One headline figure.

    Attributes:
        brief: shorter value for the table that compares runs.
        compared: whether it appears in that table.
    """

    label: str
    value: str
    note: str = ""
    brief: str = ""
    compared: bool = True


def state(history: History, now: float | None = None) -> str:
    """Return `finished`, `running`, `failed`, `stopped` or `not started`, judging by the run folder.

    A run that has written nothing for two minutes or ten steps, whichever is longer, counts as stopped.
    """
    if history.ended and (history.last_step >= history.max_steps or _out_of_data(history)):
        return "finished"
    if end := ending(history.run):
        return end.state
    if history.last_time is None:
        return STOPPED if was_killed_early(history.run) else "not started"
    step_s = history.last("step_time_s") or 0.0
    silent_s = (time.time() if now is None else now) - history.last_time
    return "stopped" if history.ended or silent_s > max(QUIET_S, 10 * step_s) else "running"


def _out_of_data(history: History) -> bool:
    return end_step(history.run, history.max_steps) is not None


def headline(history: History, saved: list[SavedCheckpoint]) -> list[Figure]:
    """Return the figures for the top of the page, omitting those the run has not recorded."""
    figures = [_loss(history), _val_loss(history), _steps(history), _tokens(history), _speed(history)]
    figures += [_compute(history), _memory(history), _time(history), _checkpoints(saved)]
    return [figure for figure in figures if figure]


def _loss(history: History) -> Figure | None:
    first, last = history.first("loss"), history.last("loss")
    if history.ends_not_finite("loss"):
        note = "not finite at any step" if last is None else f"last finite value {last:.3f}"
        value = "not finite" if first is None else f"{first:.3f} → not finite"
        return Figure(label="Training loss", value=value, note=note, brief="not finite")
    if first is None or last is None:
        return None
    note = "first → last step, nats per token"
    return Figure(label="Training loss", value=f"{first:.3f} → {last:.3f}", note=note, brief=f"{last:.3f}")


def _val_loss(history: History) -> Figure | None:
    last = history.last("val_loss")
    if history.ends_not_finite("val_loss"):
        return Figure(label="Validation loss", value="not finite")
    if last is None:
        return None
    accuracy = history.last("val_masked_accuracy")
    if accuracy is not None:
        note = f"masked tokens; accuracy {accuracy:.1%}"
        return Figure(label="Validation loss", value=f"{last:.3f}", note=note)
    by_set = {name: value for name in set_names(history.series) if (value := history.last(loss_key(name)))}
    note = losses_of_sets(by_set) or f"perplexity {_perplexity(last)}"
    return Figure(label="Validation loss", value=f"{last:.3f}", note=note)


def _perplexity(nats: float) -> str:
    return three_digits(math.exp(nats)) if nats < 50 else "over 1e21"


def _steps(history: History) -> Figure:
    asked = history.max_steps or (history.plan.max_steps if history.plan else 0)
    restarts = max(0, history.attempts - 1)
    note = f"of {asked:,}" if asked else ""
    if restarts:
        note += f"; {restarts} restart{'s' if restarts > 1 else ''}"
    return Figure(label="Steps", value=f"{history.last_step:,}", note=note.lstrip("; "))


def _tokens(history: History) -> Figure | None:
    tokens = history.last("tokens")
    if tokens is None:
        return None
    note = f"{history.plan.tokens_per_step:,} per step" if history.plan else ""
    return Figure(label="Tokens", value=count(tokens), note=note)


def _speed(history: History) -> Figure | None:
    speeds = history.series.get("tokens_per_s")
    if not speeds:
        return None
    note = "median over all steps"
    world = history.plan.world_size if history.plan else 1
    median = speeds.median()
    if world > 1:
        note += f"; {count(median / world)} per process"
    return Figure(label="Tokens per second", value=count(median), note=note)


def _compute(history: History) -> Figure | None:
    full, causal = history.series.get("tflops_per_gpu"), history.series.get("tflops_per_gpu_causal")
    if not full or not history.plan or history.plan.device == "cpu":
        return None
    notes = [f"{three_digits(causal.median())} with causal attention"] if causal else []
    shares = [
        f"{word} {history.series[key].median():.1%}"
        for key, word in (("mfu", "MFU"), ("mfu_causal", "causal"))
        if key in history.series
    ]
    notes += [", ".join(shares)] if shares else []
    return Figure(label="TFLOP/s per GPU", value=three_digits(full.median()), note="; ".join(notes))


def _memory(history: History) -> Figure | None:
    peak = history.last("memory_peak_bytes")
    if peak is None:
        return None
    where = "resident" if history.plan and history.plan.device == "cpu" else "allocated"
    return Figure(label="Peak memory", value=size(peak), note=f"{where}, first rank")


def _time(history: History) -> Figure | None:
    if not history.active_s:
        return None
    found = goodput(history)
    note = f"goodput {found.share:.0%} of {duration(found.wall_s)}" if found else "excluding start-up"
    return Figure(label="Time in training", value=duration(history.active_s), note=note)


def _checkpoints(saved: list[SavedCheckpoint]) -> Figure:
    if not saved:
        return Figure(label="Checkpoints", value="0", compared=False)
    note = f"latest: {size(saved[-1].size_bytes)}"
    return Figure(label="Checkpoints", value=str(len(saved)), note=note, compared=False)
