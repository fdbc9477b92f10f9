"""How a run ended before its last step: stopped on purpose, or failed. Every view of a run asks here."""

from __future__ import annotations

from dataclasses import dataclass

from nemolaunch.observe.failure import container_failed, error_records, failure, is_told_to_exit, was_killed
from nemolaunch.run.attempts import attempts
from nemolaunch.run.folder import RunDir, read_json
from nemolaunch.system import processes

STOPPED, FAILED = "stopped", "failed"
COMMAND_GONE = "it has no process on this machine"  # the command that ran it was killed, and they with it


@dataclass(frozen=True, kw_only=True)
class Ending:
    """The end of a run: `stopped` or `failed`, and why."""

    state: str
    detail: str


def ending(run: RunDir) -> Ending | None:
    """Return how the run ended, from what it has written; None if nothing says that it has.

    Ranks that are told to exit raise various errors. They are no failure if the run was stopped before.
    """
    recorded = read_json(run.local_end)
    if recorded:
        return Ending(state=str(recorded.get("state")), detail=str(recorded.get("detail")))
    if why := _cancelled(run):
        return Ending(state=STOPPED, detail=why)
    records = error_records(run)
    killed = not attempts(run) and was_killed(run)
    if records and not attempts(run) and all(map(is_told_to_exit, records)) and not killed:
        return Ending(state=STOPPED, detail=COMMAND_GONE)
    failed = records or killed or container_failed(run)
    return Ending(state=FAILED, detail=failure(run, 1).message) if failed else None


def was_killed_early(run: RunDir) -> bool:
    """Return whether a run on this machine was started, has written nothing about a step, and has no process."""
    started = run.launcher_log.exists() and not run.slurm.exists()
    return started and not processes.members(run.root)


def _cancelled(run: RunDir) -> str | None:
    """Return why a run on Slurm was cancelled, or None: it may also have been stopped for lack of progress."""
    try:
        why = run.slurm_stopped.read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return why if "cancelled" in why else None
