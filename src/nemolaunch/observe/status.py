"""The current status of a run, from the end of its metrics file and Slurm's queue. Reads only kilobytes."""

from __future__ import annotations

import difflib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.data.validation_sets import losses
from nemolaunch.errors import NemolaunchError
from nemolaunch.observe import slurm_run
from nemolaunch.observe.diagnosis import Diagnosis, diagnose, newest_failure
from nemolaunch.observe.ending import COMMAND_GONE, ending
from nemolaunch.planning import Plan
from nemolaunch.run.attempts import attempts
from nemolaunch.run.folder import RunDir, step_of
from nemolaunch.run.labels import labels_of
from nemolaunch.run.metrics import MIGRATED, last_validation, recent_events, tail_rows
from nemolaunch.run.uploads import state_of
from nemolaunch.slurm import own_jobs
from nemolaunch.slurm import queue as slurm_queue
from nemolaunch.slurm.queue import QueuedJob
from nemolaunch.system import processes

SHOWN_NOTICES, SHOWN_RUNS = 5, 3
Queue = dict[str, list[QueuedJob]] | slurm_queue.Unreachable  # jobs by name, or why Slurm cannot be reached


@dataclass(frozen=True, kw_only=True)
class Status:
    """The status of one run.

    Attributes:
        state: `finished`, `running`, `waiting`, `blocked`, `stopped`, `failed`, `ended`, `never submitted`,
            `unreadable` or `unknown`.
        detail: where it runs, what it waits for, or why it stopped.
        step: optimizer steps done, out of `max_steps`.
        loss, tokens_per_s: of the latest step; None before the first.
        val_loss: of the latest validation; None before the first.
        val_losses: of the latest validation, by validation set.
        eta_s: seconds to the last step at the current speed.
        quiet_s: seconds since the run last wrote a step.
        restarts: since it was last submitted by the user.
        checkpoint_step: steps in the newest complete checkpoint, 0 if there is none.
        notices: the latest warnings of the guards since the run last started, newest last.
        tags: that a user gave it.
        tokens: tokens that it has read.
    """

    folder: Path
    experiment: str
    model: str
    state: str
    detail: str
    step: int
    max_steps: int
    loss: float | None
    val_loss: float | None
    val_losses: dict[str, float]
    tokens_per_s: float | None
    eta_s: float | None
    quiet_s: float | None
    restarts: int
    checkpoint_step: int
    job: str
    notices: tuple[str, ...]
    tags: tuple[str, ...] = ()
    tokens: float | None = None


def status(folder: Path) -> Status:
    """Return the status of a run folder.

    Raises:
        NemolaunchError: the folder is not a run folder.
    """
    return _status(Plan.of_run(run_of(folder)), None)


def statuses(folders: list[Path]) -> tuple[list[Status], list[str]]:
    """Return the status of several runs, with a single query to Slurm, and errors about unreadable ones."""
    plans, problems = [], []
    for folder in folders:
        try:
            plans.append(Plan.of_run(run_of(folder)))
        except NemolaunchError as error:
            problems.append(str(error))
    on_slurm = [plan for plan in plans if plan.submission and not slurm_run.finished(plan)]
    names = [name for plan in on_slurm for name in own_jobs.names(plan)]
    queue: Queue
    try:
        queue = slurm_queue.jobs_by_name(names)
    except slurm_queue.Unreachable as error:
        queue = error
    found = []
    for plan in plans:
        try:
            found.append(_status(plan, queue))
        except (NemolaunchError, OSError, ValueError, TypeError, LookupError, ArithmeticError) as error:
            found.append(_unreadable(plan, error))
    return found, problems


def _unreadable(plan: Plan, error: Exception) -> Status:
    """Return the status of a run whose files are damaged, so that the others are listed all the same."""
    return Status(
        folder=plan.run.root, experiment=plan.job.launch.experiment, model=plan.model, state="unreadable",
        detail=f"its files are damaged: {type(error).__name__}: {error}", step=0, max_steps=plan.max_steps, loss=None,
        val_loss=None, val_losses={}, tokens_per_s=None, eta_s=None, quiet_s=None, restarts=0, checkpoint_step=0,
        job="", notices=(), tags=labels_of(plan.run).tags,
    )  # fmt: skip


def _left_s(plan: Plan, step: int, step_time_s: float) -> float:
    """Return the seconds of the steps left, at the time per sample of the last step."""
    read = plan.batch_sizes.samples
    return step_time_s * (read(plan.max_steps) - read(step)) / max(1, read(step) - read(step - 1))


def _status(plan: Plan, queue: Queue | None) -> Status:
    run = plan.run
    rows = [row for row in tail_rows(run.metrics) if "loss" in row]
    last: dict[str, Any] = rows[-1] if rows else {}
    validation = last_validation(run.metrics)
    state, detail, job = _condition(plan, queue)
    step, steps = int(last.get("step", 0)), plan.max_steps
    if state == "finished":
        step = max(step, steps)
    step_time_s = last.get("step_time_s")
    newest = run.last_checkpoint() if run.checkpoints.is_dir() else None
    return Status(
        folder=run.root,
        experiment=plan.job.launch.experiment,
        model=plan.model,
        state=state,
        detail=detail,
        step=step,
        max_steps=steps,
        loss=last.get("loss"),
        val_loss=validation.get("val_loss"),
        val_losses=losses(validation),
        tokens_per_s=last.get("tokens_per_s"),
        eta_s=_left_s(plan, step, step_time_s) if step_time_s and state == "running" else None,
        quiet_s=max(0.0, time.time() - last["time"]) if "time" in last else None,
        restarts=slurm_run.restarts(plan),
        checkpoint_step=step_of(newest) + 1 if newest else 0,
        job=job,
        notices=(
            *(f"{row['event']} at step {row['step']}: {row['text']}" for row in _notices(run)),
            *_uploads(run, state),
        ),
        tags=labels_of(run).tags,
        tokens=last.get("tokens"),
    )


def _uploads(run: RunDir, state: str) -> list[str]:
    uploads = state_of(run)
    if uploads is None:
        return []
    left = state not in ("running", "waiting") and (uploads.error or uploads.under_way)
    return [f"{uploads}; `nemolaunch upload {run.root}` sends the rest" if left else str(uploads)]


def _notices(run: RunDir) -> list[dict[str, Any]]:
    rows = recent_events(run.metrics)
    start = max((i for i, row in enumerate(rows) if row["event"] in ("start", MIGRATED)), default=0)
    return [row for row in rows[start:] if "text" in row and row["event"] != MIGRATED][-SHOWN_NOTICES:]


def run_of(folder: Path) -> RunDir:
    """Return the run in a folder; the path of its plan.json is accepted too.

    Raises:
        NemolaunchError: the folder holds no run; the message names similar runs.
    """
    run = RunDir(folder.expanduser().absolute())
    if run.root.name == run.plan.name and run.root.is_file():
        run = RunDir(run.root.parent)
    if not run.plan.exists():
        why = f"it has no {run.plan.name}" if run.root.exists() else "the folder does not exist"
        raise NemolaunchError(f"{folder} is not a run folder: {why}{_meant(folder)}")
    return run


def _meant(folder: Path) -> str:
    """Return a hint at the runs in a folder that is not a run, or at runs of a similar name."""
    found = runs_below(folder)
    if found:
        more = f" and {len(found) - SHOWN_RUNS} more" if len(found) > SHOWN_RUNS else ""
        return f"; it contains the runs {', '.join(map(str, found[:SHOWN_RUNS]))}{more}"
    known = {path.name: path for place in (folder.parent, Path("runs")) for path in runs_below(place)}
    near = difflib.get_close_matches(folder.name, known, n=SHOWN_RUNS)
    return f"; did you mean {' or '.join(str(known[name]) for name in near)}?" if near else ""


def runs_below(folder: Path) -> list[Path]:
    """Return the run folders in a folder, newest first."""
    found = [path.parent for path in folder.glob("*/plan.json")]
    return sorted(found, key=lambda path: -os.stat(path / "plan.json").st_mtime)


def _condition(plan: Plan, queue: Queue | None) -> tuple[str, str, str]:
    """Return state, detail and job. A local job is only visible on the machine it runs on."""
    if plan.submission is not None:
        if isinstance(queue, slurm_queue.Unreachable) and not slurm_run.finished(plan):
            return "unknown", str(queue), ""
        known = queue if isinstance(queue, dict) else None
        try:
            now = slurm_run.condition(plan, known)
        except slurm_queue.Unreachable as error:
            return "unknown", str(error), ""
        return (
            now.word,
            now.detail + (", starting" if now.word == "running" and _is_starting(plan) else ""),
            now.job,
        )
    if slurm_run.finished(plan):
        return "finished", "", ""
    if processes.members(plan.run.root):
        return "running", _place(plan), ""
    if end := ending(plan.run):
        return end.state, end.detail, ""
    return "stopped", COMMAND_GONE, ""


def _place(plan: Plan) -> str:
    return "on this machine" if plan.container is None else f"in {plan.container.engine} on this machine"


def _is_starting(plan: Plan) -> bool:
    """Return whether the latest attempt has not done a step yet."""
    begun = max((attempt.time for attempt in attempts(plan.run)), default=0.0)
    return not any(row.get("time", 0.0) > begun for row in tail_rows(plan.run.metrics) if "loss" in row)


def explanation(run: RunDir, now: Status) -> Diagnosis | None:
    """Return why a run failed or, if its end was no failure, why its last failed attempt did; None if none did."""
    if has_failed(run, now):
        return diagnose(run)
    return newest_failure(run, alive=now.state in ("running", "finished"))


def has_failed(run: RunDir, now: Status) -> bool:
    """Return whether a run is over because of a failure."""
    if now.state in ("running", "waiting", "finished"):
        return False
    plan = Plan.of_run(run)
    if plan.submission is not None:
        return now.state == "never submitted" or slurm_run.failed(plan, now.detail, now.job)
    return now.state == "failed"
