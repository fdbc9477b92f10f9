"""Starting the runs of a sweep: one after another or some at a time on this machine, all at once on Slurm."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from nemolaunch.errors import NemolaunchError
from nemolaunch.observe.ending import STOPPED, ending
from nemolaunch.observe.status import statuses
from nemolaunch.planning import Plan
from nemolaunch.sweeps.folder import lock_of
from nemolaunch.sweeps.planned import RunPlan

POLL_S = 0.5
PATIENCE_S = 30.0  # twice as long as processes are given to end before they are killed
# Of a run on Slurm or in another process, which must not be started again
ALIVE = ("running", "waiting", "blocked")
OVER_BADLY = ("failed", "ended")


class Started(Protocol):
    """A run that was started on this machine: `nemolaunch.Run`."""

    def poll(self) -> int | None:
        """Return the exit code once it is over, else None."""

    def conclude(self, code: int) -> int:
        """Release its resources. Return its last step; raise NemolaunchError if it ended before it."""

    def stop(self, reason: str = ...) -> list[str]:
        """End it."""


# Starts a plan with these GPUs, all visible ones by default; returns at once
Launch = Callable[[Plan, "Sequence[str] | None"], Started]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Sorted:
    """The runs of a sweep by what they need: those to start, and those that are left alone and why."""

    to_start: tuple[RunPlan, ...] = ()
    finished: tuple[RunPlan, ...] = ()
    failed: tuple[RunPlan, ...] = ()
    alive: tuple[RunPlan, ...] = ()


def sorted_runs(runs: Iterable[RunPlan], *, retry_failed: bool) -> Sorted:
    """Sort runs by what is in their folders. Those that were interrupted, or never started, are to start."""
    groups: dict[str, list[RunPlan]] = {name: [] for name in ("to_start", "finished", "failed", "alive")}
    runs = tuple(runs)
    known = {
        s.folder: s.state for s in statuses([r.plan.run.root for r in runs if r.plan.run.plan.exists()])[0]
    }
    for run in runs:
        state = known.get(run.plan.run.root)
        if state in ALIVE:
            group = "alive"
        elif run.finished_step is not None:
            group = "finished"
        else:
            group = "failed" if state in OVER_BADLY and not retry_failed else "to_start"
        groups[group].append(run)
    return Sorted(**{name: tuple(members) for name, members in groups.items()})


def settled_runs(runs: Iterable[RunPlan], *, retry_failed: bool) -> Sorted:
    """Sort runs of this machine, once processes of a command that was killed have ended, which takes them seconds."""
    runs = tuple(runs)
    deadline = time.monotonic() + PATIENCE_S
    while (found := sorted_runs(runs, retry_failed=retry_failed)).alive and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return found


@dataclass
class Outcome:
    """How the runs that were started ended: names of finished and stopped ones, and what failed ones said."""

    finished: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    submitted: list[str] = field(default_factory=list)


def submit_all(runs: Sequence[RunPlan], launch: Launch, tell: Tell) -> Outcome:
    """Submit every run as a job of its own. Runs that Slurm refuses are told with the reason; the others go on."""
    outcome = Outcome()
    for run in runs:
        try:
            launch(run.plan, None)
            outcome.submitted.append(run.point.name)
        except NemolaunchError as error:
            outcome.failed[run.point.name] = str(error)
            tell(f"{run.point.name} was not submitted: {error}")
    return outcome


def run_here(runs: Sequence[RunPlan], launch: Launch, tell: Tell, *, parallel: int = 1) -> Outcome:
    """Run to their end, at most `parallel` at a time. One that fails does not stop the others; Ctrl-C stops all."""
    outcome, waiting = Outcome(), deque(enumerate(runs, 1))
    going: dict[int, tuple[RunPlan, Started]] = {}  # by slot, which has its share of the GPUs
    try:
        while waiting or going:
            while waiting and len(going) < parallel:
                number, run = waiting.popleft()
                slot = next(slot for slot in range(parallel) if slot not in going)
                tell(f"{run.point.name} starts ({number} of {len(runs)})")
                try:
                    going[slot] = (run, launch(run.plan, gpus_of(run.plan, slot, parallel)))
                except NemolaunchError as error:  # it did not start
                    outcome.failed[run.point.name] = str(error)
                    tell(f"{run.point.name} failed: {str(error).splitlines()[0]}")
            for slot, (run, job) in list(going.items()):
                if (code := job.poll()) is None:
                    continue
                del going[slot]
                try:
                    step = job.conclude(code)
                    outcome.finished.append(run.point.name)
                    tell(f"{run.point.name} finished step {step:,}")
                except NemolaunchError as error:
                    _note(outcome, run, error, tell)
            if going:
                time.sleep(POLL_S)
    except KeyboardInterrupt:
        if going:
            names = ", ".join(run.point.name for run, _ in going.values())
            tell(
                f"stopping {names}, with a checkpoint once training has begun; Ctrl-C again stops without one"
            )
        raise
    finally:
        for _, job in going.values():
            job.stop("interrupted")
    return outcome


def _note(outcome: Outcome, run: RunPlan, error: NemolaunchError, tell: Tell) -> None:
    end = ending(run.plan.run)
    if end is not None and end.state == STOPPED:
        outcome.stopped.append(run.point.name)
        tell(f"{run.point.name} was stopped: {end.detail}")
    else:
        outcome.failed[run.point.name] = str(error)
        tell(f"{run.point.name} failed: {str(error).splitlines()[0]}")


def gpus_of(plan: Plan, slot: int, parallel: int) -> list[str] | None:
    """Return the share of this machine's GPUs that the runs of a slot use; None for all."""
    if plan.device == "cpu" or parallel == 1:
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(i) for i in range((slot + 1) * plan.num_gpus)]
    return names[slot * plan.num_gpus : (slot + 1) * plan.num_gpus]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder of a sweep, so that a second command does not start the same runs.

    Raises:
        NemolaunchError: another process holds it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NemolaunchError(f"cannot write {folder}: {error.strerror}") from None
    lock = lock_of(folder)
    lock.take()
    try:
        yield
    finally:
        lock.release()


def left_alone(runs: Sorted) -> list[str]:
    """Return lines about the runs that are not started, and why."""
    groups = (
        ("already finished", runs.finished),
        ("already running or queued", runs.alive),
        ("failed before; --retry-failed starts them again", runs.failed),
    )
    return [f"{why}: {', '.join(run.point.name for run in group)}" for why, group in groups if group]
