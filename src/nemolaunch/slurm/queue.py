"""Query Slurm about jobs, and cancel them. Needs no accounting: `squeue`, `scontrol` and `scancel` are enough."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection
from dataclasses import dataclass

from nemolaunch.errors import NemolaunchError
from nemolaunch.facts.array_jobs import NEVER as NEVER
from nemolaunch.facts.slurm_variables import plain_environment

TIMEOUT_S = 30
LIVING = ("PENDING", "RUNNING", "SUSPENDED", "STOPPED", "COMPLETING", "CONFIGURING", "RESIZING", "SIGNALING")
_FIELDS = "%j|%i|%T|%r|%S|%M|%l|%N|%V"
_NAMES = ("id", "state", "reason", "start", "elapsed", "limit", "nodes", "submitted")
NUM_FIELDS = len(_NAMES)


@dataclass(frozen=True, kw_only=True)
class QueuedJob:
    """A waiting or running job.

    Attributes:
        state: Slurm's name for it, such as PENDING, RUNNING, COMPLETING.
        reason: why it is waiting.
        start: when it started or is expected to start; `N/A` if Slurm does not know.
        elapsed, limit: in Slurm's time format.
        nodes: host list; empty while it is waiting.
        submitted: when, in local time; empty if not known.
    """

    id: str
    state: str
    reason: str
    start: str
    elapsed: str
    limit: str
    nodes: str
    submitted: str = ""

    @property
    def active(self) -> bool:
        """Whether the job holds nodes, or did so a moment ago."""
        return self.state != "PENDING"


class Unreachable(NemolaunchError):
    """Slurm's controller does not answer, or its commands are not installed."""


class NotInstalled(Unreachable):
    """Slurm's commands are not installed on this machine, so retrying is pointless."""


def jobs(name: str) -> list[QueuedJob]:
    """Return the queued jobs of that name, the running one first.

    Raises:
        Unreachable: Slurm cannot be reached.
    """
    return jobs_by_name([name]).get(name, [])


def jobs_by_name(names: Collection[str]) -> dict[str, list[QueuedJob]]:
    """Return the queued jobs of each of these names, with a single query to the controller.

    Raises:
        Unreachable: Slurm cannot be reached.
    """
    if not names:
        return {}
    answer = _run("squeue", "--noheader", f"--format={_FIELDS}", f"--name={','.join(names)}")
    found: dict[str, list[QueuedJob]] = {}
    for line in answer.splitlines():
        name, *fields = line.split("|")
        if len(fields) in (NUM_FIELDS - 1, NUM_FIELDS):
            found.setdefault(name, []).append(QueuedJob(**dict(zip(_NAMES, fields, strict=False))))
    return {name: sorted(of_name, key=lambda job: not job.active) for name, of_name in found.items()}


def final_state(job: str) -> str:
    """Return the state of a job that has left the queue, such as COMPLETED; empty if Slurm no longer knows it."""
    if not job:
        return ""  # scontrol would show everybody's jobs
    try:
        shown = _run("scontrol", "--oneliner", "show", "job", job)
    except Unreachable:
        shown = ""
    state = shown.partition(" JobState=")[2].partition(" ")[0]
    if state:
        return state
    try:
        rows = _run("sacct", "-nXP", "-j", job, "-o", "State").split()
    except Unreachable:
        return ""
    return rows[0] if rows else ""


def whole_job(job: str) -> str:
    """Return the array's id for a task, which squeue lists as `10_1` or, unusable in commands, `10_[2-9%1]`."""
    return job.partition("_")[0]


def cancel(job_ids: list[str]) -> None:
    """Cancel jobs, ignoring those that are already gone.

    Raises:
        Unreachable: Slurm cannot be reached.
    """
    for job in dict.fromkeys(map(whole_job, job_ids)):
        try:
            _run("scancel", job)
        except Unreachable as error:
            if "Invalid job id" not in str(error):
                raise


def _run(*command: str) -> str:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            env=plain_environment(os.environ),
        )
    except FileNotFoundError:
        raise NotInstalled(
            f"{command[0]} is not installed: run this on the Slurm cluster, or add --ssh HOST"
        ) from None
    except subprocess.TimeoutExpired:
        raise Unreachable(f"{command[0]} did not answer within {TIMEOUT_S} s") from None
    if done.returncode:
        raise Unreachable(f"{command[0]}: {_said(command[0], done.stderr)}")
    return done.stdout


def _said(command: str, stderr: str) -> str:
    """Return a Slurm command's error message without the command's name in front of each line."""
    lines = [line.removeprefix(f"{command}: ").removeprefix("error: ") for line in stderr.splitlines()]
    return "; ".join(line.strip() for line in lines if line.strip())
