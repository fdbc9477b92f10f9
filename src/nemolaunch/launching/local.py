"""A job on this machine: start it, stop it, and leave no process behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nemolaunch.launching import warm_start
from nemolaunch.launching.prepare import prepare
from nemolaunch.launching.secrets import Secrets
from nemolaunch.launching.warm_start import WarmProcess
from nemolaunch.planning import Plan
from nemolaunch.run.folder import RunDir
from nemolaunch.run.lock import RunLock
from nemolaunch.run.metrics import tail_rows
from nemolaunch.system import folder_identity, processes
from nemolaunch.system.atomic_files import private_opener, write_json
from nemolaunch.system.open_folder import OpenFolder, moved, remove_empty
from nemolaunch.system.process_identity import begin_of
from nemolaunch.system.processes import GRACE_S, OF_TORCHRUN, SAVE_SIGNAL
from nemolaunch.system.secret_values import masked, without_password

EVALUATION = (
    "nemolaunch.evaluation.beside"  # which is not imported here: it evaluates in processes of its own
)


def note_end(run: RunDir, state: str, detail: str) -> None:
    """Record how a run on this machine ended before its last step; an earlier record is kept.

    Ranks that are told to exit raise various errors, which would otherwise be mistaken for the cause.
    """
    if not run.local_end.exists() and run.plan.exists():  # the folder may have been moved
        write_json(run.local_end, {"state": state, "detail": masked(detail)})


def start_in_background(
    module: str,
    plan: Plan,
    secrets: Secrets | None,
    variables: Mapping[str, str] = MappingProxyType({}),
    log_file: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a module that runs a prepared plan, in a session of its own.

    Args:
        variables: of the environment, besides those of this process.
        log_file: for its output; by default the launcher's log.
    """
    run, secret = plan.run, (secrets or Secrets()).environment() | dict(variables)
    with open(log_file or run.launcher_log, "wb", opener=private_opener if plan.is_private else None) as log:
        return subprocess.Popen(
            [sys.executable, "-m", module, str(run.plan)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | without_password(os.environ) | processes.marked(run.root) | secret,
            start_new_session=True,
        )


def _start_warm(plan: Plan, secrets: Secrets | None, variables: Mapping[str, str]) -> WarmProcess:
    """Have the ranks forked from a process that has imported the framework."""
    secret = (secrets or Secrets()).environment() | dict(variables)
    with open(plan.run.launcher_log, "wb", opener=private_opener if plan.is_private else None):
        return warm_start.start(plan, processes.marked(plan.run.root) | secret, plan.run.launcher_log)


def stop_one(run: RunDir, reason: str) -> None:
    """End the job of another process that goes on with other runs, a sweep's; it notices that this one is over.

    As `LocalJob.stop` in that process: with a checkpoint, or within seconds if the job does not train yet. Ctrl-C
    meanwhile kills.
    """
    note_end(run, "stopped", reason)
    jobs = {pid for pid in processes.first(run.root) if not processes.runs_module(pid, EVALUATION)}
    began = min((at for pid in jobs if (at := begin_of(pid)) is not None), default=time.time())
    ranks = processes.first_with(run.root, OF_TORCHRUN) if _trains(run, began) else set()
    try:
        if ranks:
            processes.terminate(ranks, SAVE_SIGNAL)
        else:
            processes.terminate(jobs)
        patience_s = float("inf") if ranks else GRACE_S + 2.0
        processes.wait_until(lambda: not jobs & processes.members(run.root), patience_s)
    except KeyboardInterrupt:
        pass  # what is left is killed below
    finally:
        processes.kill(run.root)


def _trains(run: RunDir, began: float) -> bool:
    """Return whether the first step of a job that began then has begun, so that there is something to save."""
    return any(row.get("time", 0.0) >= began and _is_of_training(row) for row in tail_rows(run.metrics))


def _is_of_training(row: dict[str, Any]) -> bool:
    return row.get("event") == "start" or "loss" in row


class LocalJob:
    """A job running on this machine, as a process of NeMo-Run with torchrun and the ranks below it.

    Holds the lock of its run folder until `close`.
    """

    def __init__(self, plan: Plan, secrets: Secrets | None = None, gpus: Sequence[str] | None = None) -> None:
        """Prepare the run folder and start the job.

        Args:
            gpus: the GPUs that it may use, as in CUDA_VISIBLE_DEVICES; by default those of this process.

        Raises:
            NemolaunchError: the folder is in use or cannot be written, or the tokenizer is not available.
        """
        self.run = plan.run
        self._id: str | None = None
        self._lock = RunLock(plan.run.lock)
        self._lock.take()
        self._began = time.time()
        try:
            prepare(plan, secrets)
            self._folder = OpenFolder(self.run.root)
            self._id = folder_identity.claim(self.run.root).id
            program = "torchrun" if plan.with_bridge else "experiment"
            self._beside: subprocess.Popen[bytes] | None = None
            if plan.evaluates:
                self._beside = start_in_background(
                    EVALUATION, plan, secrets, log_file=self.run.evaluation_log
                )
            visible = {} if gpus is None else {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}
            self.process: subprocess.Popen[bytes] | WarmProcess
            if plan.job.launch.keep_warm is not None:
                self.process = _start_warm(plan, secrets, visible)
            else:
                self.process = start_in_background(f"nemolaunch.launching.{program}", plan, secrets, visible)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and plan.run.plan.exists():
                note_end(self.run, "stopped", "interrupted")
            if self._id is not None:  # one may have been started already; before, they would be another job's
                processes.kill(self.run.root, self._id)
            self._lock.release()
            raise

    def poll(self) -> int | None:
        """Return the exit code once the job and the evaluations beside it have ended.

        A job whose folder is not its own any more is ended.
        """
        if (code := self.process.poll()) is None and self.lost is not None:
            self.process.terminate()
        if code == 0 and self._beside is not None and self._beside.poll() is None and self.lost is None:
            return None
        return code

    @property
    def lost(self) -> str | None:
        """Why the run folder does not belong to this job any more; None if it does."""
        if self._folder.is_away():
            return moved(str(self.run.root), self._folder.path())
        return f"another process has taken {self.run.root} over" if self._lock.is_lost else None

    @property
    def trains(self) -> bool:
        """Whether its first step has begun, so that there is something to save."""
        return _trains(self.run, self._began)

    def stop(self, reason: str = "interrupted") -> None:
        """End every process of the job, once it has saved a checkpoint after its current step. Ctrl-C meanwhile kills.

        A job that does not train yet has nothing to save, and is ended within seconds.
        """
        if self.process.poll() != 0:  # else only evaluations beside the run are stopped
            note_end(self.run, "stopped", reason)
        try:
            ranks = processes.first_with(self.run.root, OF_TORCHRUN) if self.trains else set()
            if ranks:
                processes.terminate(ranks, SAVE_SIGNAL)
            elif self.process.poll() is None:
                self.process.terminate()
            patience_s = float("inf") if ranks else GRACE_S + 2.0
            processes.wait_until(lambda: (self.process.poll(), self.poll()) != (None, None), patience_s)
        except KeyboardInterrupt:
            pass  # what is left is killed below
        finally:
            self.close()

    def close(self) -> None:
        """Kill remaining processes (torchrun, ranks, helpers of dead ranks) and release the run folder.

        If the folder was moved, record that in its new place, and remove what has been made again in the old one.
        """
        processes.kill(self.run.root, self._id)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self._beside is not None:
            self._beside.wait()
        if self._folder.is_away():
            if (now := self._folder.path()) is not None:
                note_end(RunDir(Path(now)), "stopped", moved(str(self.run.root), now))
            remove_empty(self.run.root)
        self._lock.release()
