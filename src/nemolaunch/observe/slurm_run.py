"""A run on Slurm: its condition, following it over all its jobs, and why it ended.

The sources are the run folder and Slurm's queue. NeMo-Run's own status is not used: it needs Slurm's accounting
and reports a requeued job as failed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nemolaunch.observe.diagnosis import diagnose, newest_failure
from nemolaunch.planning import Plan
from nemolaunch.run.attempts import attempts
from nemolaunch.run.folder import end_step
from nemolaunch.run.metrics import RunFollower
from nemolaunch.slurm import own_jobs
from nemolaunch.slurm import queue as slurm_queue
from nemolaunch.slurm.queue import QueuedJob
from nemolaunch.system import folder_identity

POLL_S = 5.0  # a Slurm controller serves thousands of users
SETTLE_S = 15.0  # Slurm takes a moment to put a requeued job back into the queue


@dataclass(frozen=True, kw_only=True)
class Condition:
    """The condition of a run.

    Attributes:
        word: `finished`, `running`, `waiting`, `blocked`, `stopped`, `ended` or `never submitted`.
        detail: what Slurm or the run's own jobs report about it.
        job: the running or waiting job, else the last one.
        jobs: all jobs of the run that are in the queue.
    """

    word: str
    detail: str = ""
    job: str = ""
    jobs: tuple[QueuedJob, ...] = ()

    @property
    def over(self) -> bool:
        """Whether no job of the run is running or will start on its own."""
        return self.word not in ("running", "waiting")


def condition(plan: Plan, queue: Mapping[str, Sequence[QueuedJob]] | None = None) -> Condition:
    """Return the current condition of the run.

    Args:
        queue: jobs in the queue by name, if already known.

    Raises:
        slurm_queue.Unreachable: the run's files do not settle it, and Slurm cannot be reached.
    """
    if finished(plan):
        return Condition(word="finished", job=_last_job(plan))
    queued = tuple(own_jobs.queued(plan, queue))
    if queued and queued[0].active:
        return Condition(word="running", detail=_nodes(queued[0]), job=queued[0].id, jobs=queued)
    stopped = _text(plan.run.slurm_stopped)
    if not stopped and (original := _original(plan)):
        detail = f"it is a copy of {original} and has no job of its own"
        return Condition(word="stopped", detail=detail)
    last = _last_job(plan)
    if stopped:
        return Condition(word="stopped", detail=stopped, job=last, jobs=queued)
    if queued:
        return _waiting(plan, queued, last)
    if not last:
        return Condition(word="never submitted")
    return Condition(word="ended", detail=slurm_queue.final_state(last), job=last)


def _nodes(job: QueuedJob) -> str:
    return job.nodes if job.state == "RUNNING" else f"{job.nodes}, {job.state.lower()}"


def _waiting(plan: Plan, queued: tuple[QueuedJob, ...], last: str) -> Condition:
    """Return the condition of a run with waiting jobs, none of which is running."""
    first = queued[0]
    if first.reason == slurm_queue.NEVER:
        detail = (
            f"{first.reason}: the job it depends on failed; remove it from the queue with `nemolaunch cancel`"
        )
        return Condition(word="blocked", detail=detail, job=first.id, jobs=queued)
    if last not in [job.id for job in queued] and slurm_queue.final_state(last) == "CANCELLED":
        return Condition(word="stopped", detail=f"job {last} was cancelled", job=last, jobs=queued)
    return Condition(word="waiting", detail=first.reason, job=first.id, jobs=queued)


def finished(plan: Plan) -> bool:
    """Return whether the last step is done."""
    return end_step(plan.run, plan.max_steps) is not None


def _last_job(plan: Plan) -> str:
    return ((_text(plan.run.slurm_current) or _text(plan.run.slurm_submitted)).split() or [""])[0]


def _original(plan: Plan) -> str | None:
    """Return the folder that a run was copied from; None if it is not a copy, or has been started since."""
    found = folder_identity.read(plan.run.root)
    return found.path if found and folder_identity.is_copy(plan.run.root) else None


def _text(path: os.PathLike[str]) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def restarts(plan: Plan) -> int:
    """Return how often the run has been restarted since it was last submitted by the user."""
    return max(0, len(attempts(plan.run)) - 1)


def sentence(now: Condition | None) -> str:
    """Return the condition of the run as a sentence; empty if there is nothing to report."""
    if now is None or now.word == "finished":
        return ""
    if now.word == "running":
        return f"job {now.job} is running on {now.detail}"
    if now.word == "waiting":
        start = now.jobs[0].start
        expected = f", expected to start {start}" if start not in ("N/A", "") else ""
        return f"job {now.job} is waiting: {now.detail}{expected}"
    if now.word == "ended":
        return f"job {now.job} has left the queue: {now.detail or 'Slurm no longer knows its final state'}"
    return f"the run is {now.word}" + (f": {now.detail}" if now.detail else "")


def verdict(plan: Plan, end: Condition) -> str:
    """Return why a run that is over has not finished, with the first failed rank and its log."""
    text = f"the run did not finish: {sentence(end).removeprefix('the run is ')}"
    if end.word == "blocked" or not failed(plan, end.detail, end.job):
        return text
    return "\n  ".join([text, *diagnose(plan.run).lines()])


def failed(plan: Plan, detail: str, job: str) -> bool:
    """Return whether a run that is over failed: it was not cancelled and did not exit cleanly.

    Args:
        detail, job: of its condition.
    """
    return not (
        "cancelled" in detail.lower()
        or detail.startswith((f"job {job} exited at", f"job {job} left at"))  # guard.sh, now and before 0.2
        or not plan.run.slurm_current.exists()
    )


class QueueFollower:
    """Waits for the end of a run, across restarts and periods in which Slurm does not answer."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._quiet_since: float | None = None
        self._explained = ""
        self.seen: Condition | None = None
        self.unreachable = ""  # why Slurm cannot be reached

    def poll(self) -> Condition | None:
        """Return the final condition once there is one, else None.

        Raises:
            slurm_queue.NotInstalled: Slurm's commands are not installed on this machine.
        """
        try:
            now = condition(self._plan)
        except slurm_queue.NotInstalled:
            raise
        except slurm_queue.Unreachable as error:
            self.unreachable = str(error)
            return None
        self.seen, self.unreachable = now, ""
        if not now.over:
            self._quiet_since = None
            return None
        if now.word in ("finished", "stopped", "blocked"):
            return now
        self._quiet_since = self._quiet_since or time.monotonic()
        return now if time.monotonic() - self._quiet_since > SETTLE_S else None

    def news(self) -> str:
        """Return why the latest attempt that is over ended, once per attempt; empty if there is nothing new."""
        if self.seen is None or self.seen.word not in ("running", "waiting"):
            return ""
        alive = self.seen.word == "running"
        over = attempts(self._plan.run)[: -1 if alive else None]
        if not over or over[-1].name == self._explained:
            return ""
        self._explained = over[-1].name
        found = newest_failure(self._plan.run, alive)
        clean = f"job {over[-1].job} exited cleanly and will resume"
        return "\n  ".join([f"job {over[-1].job} failed", *found.lines()]) if found else clean


class FollowedRun:
    """A run on Slurm, followed until it is over. Polls Slurm, and reports changes in the queue."""

    def __init__(self, plan: Plan, tell: Callable[[str], None]) -> None:
        self._plan = plan
        self._metrics = RunFollower(plan.run)
        self._follower = QueueFollower(plan)
        self._tell = tell
        self._next = 0.0
        self._told = ""
        self.end = Condition(word="running")

    def poll(self) -> int | None:
        """Return 0 once the run has finished, 1 once it has ended otherwise, else None."""
        if time.monotonic() < self._next:
            return None
        self._next = time.monotonic() + POLL_S
        end = self._follower.poll()
        if news := self._follower.news():
            self._tell(news)
        now = sentence(self._follower.seen)
        if self._follower.unreachable:
            now = f"Slurm cannot be reached: {self._follower.unreachable}"
        if now and now != self._told and end is None:
            self._told = now
            self._tell(now)
        if end is None:
            return None
        self.end = end
        return 0 if end.word == "finished" else 1

    def new_rows(self) -> list[dict[str, Any]]:
        """Return the rows of its metrics since the last call."""
        return self._metrics.new_rows()

    @property
    def verdict(self) -> str:
        """Why the run has not finished, once `poll` has returned 1."""
        return verdict(self._plan, self.end)
