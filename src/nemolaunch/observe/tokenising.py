"""Tokenising as Slurm jobs: their logs, and why tasks failed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.facts.unfinished_data import UnfinishedData, look_at_unfinished
from nemolaunch.observe.failure_patterns import cause_of
from nemolaunch.observe.tracebacks import first_error
from nemolaunch.run.attempts import tail
from nemolaunch.run.folder import RunDir

# What the output of a job that failed says: our own message, or Slurm's
_SAID = re.compile(r"^error: .*$|^(?:slurmstepd|srun)\S*:.*(?:DUE TO|CANCELLED|[Oo]om).*$", re.MULTILINE)
_DONE = re.compile(r"^.*: done(?:, .*)?$", re.MULTILINE)


@dataclass(frozen=True)
class TaskFailure:
    """A job that failed.

    Attributes:
        what: its message, verbatim.
        task: its number in the array; None for the job that joins.
        cause, change: what that means and what to do, if it is known.
    """

    what: str
    task: int | None
    log: str
    cause: str | None = None
    change: str | None = None

    def lines(self) -> list[str]:
        """Return the failure as lines for a terminal."""
        who = "the job that joins the results" if self.task is None else f"task {self.task}"
        rows = [("failed", f"{who}: {self.what}"), ("cause", self.cause), ("change", self.change)]
        return [f"{name:<8}{value}" for name, value in [*rows, ("log", self.log)] if value]


def filled(folder: Path) -> tuple[UnfinishedData, ...]:
    """Return the runs of `nemolaunch tokenize` that fill a folder; none if it is that of a training."""
    return () if RunDir(folder).plan.exists() else look_at_unfinished([str(folder)])


def logs_of(run: UnfinishedData) -> dict[int | None, Path]:
    """Return the log of each task of the newest array, and under None that of the job that joins."""
    found: dict[int | None, Path] = {}
    if run.jobs is None:
        return found
    folder = Path(run.folder).parent / f"{run.name}.slurm"
    for path in sorted(folder.glob(f"tokenize-{run.jobs.array}_*.log")) if run.jobs.array else ():
        task = path.stem.rpartition("_")[2]
        if task.isdigit():
            found[int(task)] = path
    join = folder / f"join-{run.jobs.join}.log"
    return {**found, None: join} if join.exists() else found


def failures(run: UnfinishedData) -> list[TaskFailure]:
    """Return the jobs that failed and are not in the queue again, by their logs."""
    alive = {*run.jobs.running, *run.jobs.waiting} if run.jobs else set()
    found = [_failure(task, path) for task, path in logs_of(run).items() if task not in alive]
    return [failure for failure in found if failure is not None]


def _failure(task: int | None, path: Path) -> TaskFailure | None:
    text = tail(path)
    said = list(_SAID.finditer(text))
    # A task that was requeued after its node failed, and is done since, has said so after that
    what = said[-1][0] if said and not _DONE.search(text, said[-1].end()) else first_error(text)
    if what is None:
        return None
    cause = cause_of(what)
    return TaskFailure(
        what.removeprefix("error: "),
        task,
        str(path),
        cause.meaning.format(node="its node") if cause else None,
        cause.change.format(node="its node") if cause else None,
    )


def as_values(run: UnfinishedData, found: list[TaskFailure]) -> dict[str, Any]:
    """Return what `diagnose --json` prints."""
    state = "tokenising" if run.goes_on else "interrupted"
    return {"state": state, "data": run.name, "failures": [vars(one) for one in found]}
