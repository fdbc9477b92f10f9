"""The lock of a run folder, `nemolaunch.system.locks` with holders of two kinds.

`local HOST PID …` is a command on some machine, `slurm JOB RESTART` a batch job, whose `guard.sh` keeps the same file
by the same rule. The first rank touches it too: it goes on writing while the command is stopped with Ctrl-Z.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nemolaunch.errors import NemolaunchError
from nemolaunch.system import folder_identity, locks
from nemolaunch.system.locks import STALE_S, Held, Lock
from nemolaunch.system.process_identity import ProcessIdentity

__all__ = ["STALE_S", "RunLock"]


class RunLock:
    """A lock file that this process holds from `take` to `release`.

    Args:
        dead: returns whether the Slurm job with that id is known to be over; its lock is then broken at once.
    """

    def __init__(self, path: Path, dead: Callable[[str], bool] = lambda job: False) -> None:
        self._path = path
        self._is_job_dead = dead
        self._lock = Lock(path, self._alive)

    @property
    def is_lost(self) -> bool:
        """Whether another process has taken the lock from this one, which must then stop writing."""
        return self._lock.lost.is_set()

    def take(self) -> None:
        """Take the lock, and keep it touched.

        Raises:
            NemolaunchError: another process holds it, or the folder cannot be written.
        """
        try:
            self._lock.take()
        except Held as held:
            raise NemolaunchError(self._who(held)) from None
        except OSError as error:
            if self._path.is_symlink():
                raise locks.refused(self._path, error) from None
            folder = self._path.parent
            raise NemolaunchError(f"cannot write to --output-dir {folder}: {error.strerror}") from None

    def release(self) -> None:
        """Release the lock if this process still holds it."""
        self._lock.release()

    def local_holder(self) -> int | None:
        """Return the id of the local process that holds the lock; None if there is none, or it is elsewhere."""
        process = _process(locks.read_record(self._path))
        return process.pid if process and process.is_alive else None

    def other_machine(self) -> str | None:
        """Return the machine on which a process holds the lock, and has touched it lately; None if there is none."""
        process = _process(locks.read_record(self._path))
        fresh = process is not None and process.is_alive is None and locks.age_s(self._path) < STALE_S
        return process.host if process and fresh else None

    def _alive(self, holder: str) -> bool | None:
        kind, _, rest = holder.partition(" ")
        if folder_identity.is_copy(self._path.parent):
            return False  # the lock was copied with the folder; its holder writes to the other one
        if kind == "slurm":
            return False if self._is_job_dead(rest.partition(" ")[0]) else None
        return locks.is_alive(holder)

    def _who(self, held: Held) -> str:
        text = (
            f"{_in_words(held.holder)} is writing to {self._path.parent}; end it first, or use another --experiment "
            f"or --output-dir for this run"
        )
        if held.age_s < -STALE_S:
            text += f". The lock {self._path} is dated in the future: if there is no such process, remove it"
        return text


def _process(holder: str) -> ProcessIdentity | None:
    kind, _, rest = holder.partition(" ")
    return ProcessIdentity.parse(rest) if kind == "local" else None


def _in_words(holder: str) -> str:
    kind, _, rest = holder.partition(" ")
    process = _process(holder)
    if kind == "slurm" and rest:
        return f"Slurm job {rest.split()[0]}"
    return f"process {process.pid} on {process.host}" if process else "another process"
