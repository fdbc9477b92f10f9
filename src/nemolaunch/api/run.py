"""A run as an object: its status, its metrics, its checkpoints, its end."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemolaunch.errors import NemolaunchError
from nemolaunch.launching import container
from nemolaunch.launching.container import ContainerJob
from nemolaunch.launching.local import LocalJob, note_end, stop_one
from nemolaunch.observe import status as run_status
from nemolaunch.observe.diagnosis import Diagnosis, diagnose
from nemolaunch.observe.ending import FAILED, STOPPED, ending
from nemolaunch.observe.slurm_run import FollowedRun
from nemolaunch.observe.status import Status, run_of
from nemolaunch.planning import Plan
from nemolaunch.ranks.news import news_of
from nemolaunch.run.folder import end_step
from nemolaunch.run.lock import RunLock
from nemolaunch.run.metrics import RunFollower, current, read
from nemolaunch.run.news import LOCAL_ATTEMPT
from nemolaunch.slurm import submission
from nemolaunch.sweeps.folder import lock_of
from nemolaunch.system import processes

if TYPE_CHECKING:
    import pandas

log = logging.getLogger("nemolaunch")

POLL_S = 0.5


class Run:
    """One run, in its folder. `launch` returns one; `Run("runs/x")` opens one that exists.

    Args:
        folder: the run folder.
        tell: called with messages while the run is followed; they are logged at level INFO by default.

    Raises:
        NemolaunchError: the folder is not a run folder.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        tell: Callable[[str], None] = log.info,
        job: LocalJob | ContainerJob | None = None,
    ) -> None:
        self._paths = run_of(Path(folder))
        self._tell = tell
        self._job = job
        self._rows: RunFollower | None = None
        self._next_look = 0.0

    def __repr__(self) -> str:
        now = self.status()
        return f"<Run {str(self.folder)!r}: {now.state}, step {now.step:,} of {now.max_steps:,}>"

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self._paths.root

    @property
    def plan(self) -> Plan:
        """The plan of the run."""
        return Plan.of_run(self._paths)

    def status(self) -> Status:
        """Return the status of the run: state, step, loss, speed, time left, restarts."""
        return run_status.status(self.folder)

    def metrics(self, *, as_frame: bool = False) -> list[dict[str, Any]] | pandas.DataFrame:
        """Return the rows of the metrics file, one per step or event, as dicts or as a pandas DataFrame.

        Steps that a resumed run repeated appear once, with their latest values.
        """
        rows = current(read(self._paths.metrics))
        if not as_frame:
            return rows
        import pandas

        return pandas.DataFrame(rows)

    @property
    def checkpoints(self) -> list[Path]:
        """The complete checkpoints, oldest first."""
        return self._paths.complete_checkpoints()

    @property
    def last_checkpoint(self) -> Path | None:
        """The newest complete checkpoint, or None."""
        return self._paths.last_checkpoint()

    def diagnose(self) -> Diagnosis | None:
        """Return the first failed rank, the cause and the fix; None if nothing failed."""
        return run_status.explanation(self._paths, self.status())

    def poll(self) -> int | None:
        """Return the run's exit code once it is over, else None."""
        if self._job is not None:
            return self._job.poll()
        if self._followed is not None:
            return self._followed.poll()
        if time.monotonic() < self._next_look:  # a terminal asks ten times a second
            return None
        self._next_look = time.monotonic() + POLL_S
        now = self.status()
        if processes.members(self.folder):  # a finished run still has to clean up
            return None
        return 0 if now.state == "finished" else 1

    def new_rows(self) -> list[dict[str, Any]]:
        """Return the rows added to the metrics since the last call, after `phase` events of its start."""
        if self._followed is not None:
            return self._followed.new_rows()
        if self._rows is None:
            self._rows = RunFollower(self._paths)
        return self._rows.new_rows()

    @functools.cached_property
    def _followed(self) -> FollowedRun | None:
        """The run on Slurm; None for a run on this machine. Read once: a terminal asks ten times a second."""
        plan = self.plan
        return FollowedRun(plan, self._tell) if plan.submission is not None else None

    def wait(self, timeout_s: float | None = None) -> Status:
        """Wait until the run is over, across restarts. Return its status.

        Raises:
            NemolaunchError: the run ended before its last step; the message says why.
            TimeoutError: the run is not over after `timeout_s` seconds.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"the run in {self.folder} is not over after {timeout_s:g} s")
            time.sleep(POLL_S)
        self.conclude(code)
        return self.status()

    def conclude(self, code: int) -> int:
        """Release the resources of a run that is over. Return its last step.

        Raises:
            NemolaunchError: the run ended before its last step; the message says why.
        """
        if self._job is not None:
            lost = self._job.lost
            self._job.close()
            if code and lost:
                raise NemolaunchError(f"the job was stopped: {lost}")
        plan = self.plan
        if code and self._followed is not None:
            raise NemolaunchError(self._followed.verdict)
        done = end_step(self._paths, plan.max_steps)
        if not code and done is None and isinstance(self._job, LocalJob):  # its ranks have saved and exited
            note_end(self._paths, STOPPED, "its ranks were asked to exit")
            code = 1
        deliberate = plan.container is not None or self._paths.local_end.exists()
        if code and deliberate and (end := ending(self._paths)) and end.state == STOPPED:
            raise NemolaunchError(f"the run was stopped: {end.detail}")
        if code:
            found = diagnose(self._paths, code)
            note_end(self._paths, "failed", found.what)
            if self._job is not None:  # a rank that was killed could not
                news_of(plan, self._tell).tell_failure(LOCAL_ATTEMPT, found.what)
            raise NemolaunchError("\n  ".join([f"the job failed. {found.what}", *found.details()]))
        return done or plan.max_steps

    def stop(self, reason: str = "stopped by the user") -> list[str]:
        """End the run, both its running and its waiting jobs. Return the ids of cancelled Slurm jobs.

        A run on this machine first saves a checkpoint, if it trains already; Ctrl-C meanwhile ends it without one.
        A sweep that it is part of goes on with the others.

        Raises:
            NemolaunchError: Slurm cannot be reached, or the run is going on on another machine.
        """
        if self._job is not None:
            end = ending(self._paths)  # of a rank, before anybody stopped the job
            if end is not None and end.state == FAILED:
                note_end(self._paths, end.state, end.detail)
            self._job.stop(reason)
            return []
        plan = self.plan
        if plan.submission is not None:
            return submission.cancel(plan)
        if plan.container is not None:
            container.stop(plan, reason)
            return []
        running = processes.members(self.folder)
        elsewhere = RunLock(self._paths.lock).other_machine()
        if not running and elsewhere:
            raise NemolaunchError(f"this run is going on {elsewhere}: cancel it there")
        command = RunLock(self._paths.lock).local_holder()
        if running and command is not None and command == lock_of(self.folder.parent).local_holder():
            stop_one(self._paths, reason)
        elif running:
            note_end(self._paths, "stopped", reason)
            processes.terminate(running if command is None else [command])
            try:
                processes.wait_until(lambda: not processes.members(self.folder), float("inf"))
            except KeyboardInterrupt:
                processes.kill(self.folder)
        return []

    @property
    def saves_when_stopped(self) -> bool:
        """Whether a run on this machine saves a checkpoint before it ends: one that does not train yet has none."""
        return not isinstance(self._job, LocalJob) or self._job.trains

    def report(self, output: str | Path | None = None) -> Path:
        """Write the report, a single HTML page. Return its path, `report.html` in the run folder by default."""
        from nemolaunch.observe.report.report import default_output, write_report

        path = Path(output) if output else default_output([self.folder])
        write_report([self.folder], path)
        return path
