"""Asks Slurm about jobs, and cancels them. Works without accounting; only `squeue`, `scontrol`, `scancel`."""

from __future__ import annotations

import subprocess
from collections.abc import Collection
from dataclasses import dataclass

from nemolaunch.errors import NemolaunchError

TIMEOUT_S = 30
NEVER = "DependencyNeverSatisfied"  # the reason of a job that will wait for ever
LIVING = ("PENDING", "RUNNING", "SUSPENDED", "STOPPED", "COMPLETING", "CONFIGURING", "RESIZING", "SIGNALING")
_FIELDS = "%j|%i|%T|%r|%S|%M|%l|%N"


@dataclass(frozen=True, kw_only=True)
class QueuedJob:
    """A job that waits or runs.

    Attributes:
        state: Slurm's word, such as PENDING, RUNNING, COMPLETING.
        reason: why it waits.
        start: when it started, or is expected to; `N/A` where Slurm does not know.
        elapsed, limit: as Slurm writes times.
        nodes: host list; empty while it waits.
    """

    id: str
    state: str
    reason: str
    start: str
    elapsed: str
    limit: str
    nodes: str

    @property
    def active(self) -> bool:
        """Whether it holds nodes, or did a moment ago."""
        return self.state != "PENDING"


class Unreachable(NemolaunchError):
    """Slurm's controller does not answer, or its commands are not installed."""


class NotInstalled(Unreachable):
    """Slurm's commands are not on this machine: to ask again is of no use."""


def jobs(name: str) -> list[QueuedJob]:
    """Jobs of that name in the queue, the running one first.

    Raises:
        Unreachable: if Slurm cannot be asked; nothing is known then.
    """
    return jobs_by_name([name]).get(name, [])


def jobs_by_name(names: Collection[str]) -> dict[str, list[QueuedJob]]:
    """Jobs of any of these names, with one question to the controller.

    Raises:
        Unreachable: if Slurm cannot be asked.
    """
    if not names:
        return {}
    answer = _run("squeue", "--noheader", f"--format={_FIELDS}", f"--name={','.join(names)}")
    found: dict[str, list[QueuedJob]] = {}
    for line in answer.splitlines():
        if line.count("|") == _FIELDS.count("|"):
            name, i, state, reason, start, elapsed, limit, nodes = line.split("|")
            job = QueuedJob(
                id=i, state=state, reason=reason, start=start, elapsed=elapsed, limit=limit, nodes=nodes
            )
            found.setdefault(name, []).append(job)
    return {name: sorted(of_name, key=lambda job: not job.active) for name, of_name in found.items()}


def final_state(job: str) -> str:
    """State of a job that has left the queue, such as COMPLETED or CANCELLED; empty where none remembers."""
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
    """The id of an array for its tasks, which squeue lists as `10_1` and `10_[2-9%1]`: the latter no command takes."""
    return job.partition("_")[0]


def cancel(job_ids: list[str]) -> None:
    """Cancel jobs; those that are gone already are passed over.

    Raises:
        Unreachable: if Slurm cannot be asked.
    """
    for job in dict.fromkeys(map(whole_job, job_ids)):
        try:
            _run("scancel", job)
        except Unreachable as error:
            if "Invalid job id" not in str(error):
                raise


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except FileNotFoundError:
        raise NotInstalled(
            f"{command[0]} is not installed: run this where the Slurm cluster is, or reach it with --ssh"
        ) from None
    except subprocess.TimeoutExpired:
        raise Unreachable(f"{command[0]} has not answered for {TIMEOUT_S} s") from None
    if done.returncode:
        raise Unreachable(f"{command[0]}: {_said(command[0], done.stderr)}")
    return done.stdout


def _said(command: str, stderr: str) -> str:
    """What a command of Slurm says, without its own name before each line."""
    lines = [line.removeprefix(f"{command}: ").removeprefix("error: ") for line in stderr.splitlines()]
    return "; ".join(line.strip() for line in lines if line.strip())
