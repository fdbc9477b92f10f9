"""The Slurm jobs that tokenise: an array of tasks, and the job that joins their results, as the queue shows them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from nemolaunch.data.unfinished import JOBS
from nemolaunch.facts.slurm_variables import plain_environment
from nemolaunch.system.commands import answers
from nemolaunch.system.json_files import read_json

_TIMEOUT_S = 10
NEVER = "DependencyNeverSatisfied"  # the reason of a job that can never start


@dataclass(frozen=True, kw_only=True)
class ArrayJobs:
    """The jobs of a run that are in the queue.

    Attributes:
        array, join: their ids; `array` is empty if no task was left when they were submitted.
        running, waiting: tasks of the array, by their numbers.
        reason: why tasks wait.
        nodes: on which they run.
        joining: state of the job that joins; empty if it is not in the queue.
        known: whether Slurm has answered.
    """

    array: str
    join: str
    running: tuple[int, ...] = ()
    waiting: tuple[int, ...] = ()
    reason: str = ""
    nodes: tuple[str, ...] = ()
    joining: str = ""
    known: bool = True

    @property
    def goes_on(self) -> bool:
        """Return whether a job continues the run, as far as is known."""
        return not self.known or bool(self.running or self.waiting or self.joining not in ("", NEVER))

    def __str__(self) -> str:
        if not self.known:
            return f"Slurm does not answer about its jobs {', '.join(filter(None, (self.array, self.join)))}"
        where = f" on {', '.join(self.nodes)}" if self.nodes else ""
        parts = [f"{len(self.running)} running{where}"] if self.running else []
        parts += [f"{len(self.waiting)} waiting ({self.reason})"] if self.waiting else []
        tasks = (
            f"job array {self.array}: {', '.join(parts) or 'no task is in the queue'}; " if self.array else ""
        )
        return f"{tasks}job {self.join}, which joins the results: {self.joining or 'not in the queue'}"


def look_at_jobs(folder: Path) -> ArrayJobs | None:
    """Return the jobs that were submitted for an unfinished run; None if it is not on Slurm.

    Args:
        folder: its work folder.
    """
    try:
        ids = read_json(folder / JOBS)
        array, join = str(ids["array"] or ""), str(ids["join"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    names = ",".join(filter(None, (array, join)))
    # Each twice: for a single job that has left the queue squeue fails, of several it lists those that are there
    (answer,) = answers(
        ["squeue", "--noheader", "--array", f"--jobs={names},{names}", "--format=%F|%K|%T|%r|%N"],
        timeout_s=_TIMEOUT_S,
        environment=plain_environment(os.environ),
    )
    if answer is None:
        return ArrayJobs(array=array, join=join, known=False)
    rows = [line.split("|") for line in answer.splitlines() if line.count("|") == 4]
    tasks = [row for row in rows if row[0] == array and row[1].isdigit()]
    waiting = [row for row in tasks if row[2] == "PENDING"]
    running = [row for row in tasks if row[2] != "PENDING"]
    joining = [NEVER if row[3] == NEVER else row[2] for row in rows if row[0] == join]
    return ArrayJobs(
        array=array,
        join=join,
        running=tuple(int(row[1]) for row in running),
        waiting=tuple(int(row[1]) for row in waiting),
        reason=waiting[0][3] if waiting else "",
        nodes=tuple(sorted({row[4] for row in running if row[4]})),
        joining=joining[0] if joining else "",
    )
