"""The lock of a run folder, which may be on a file system shared by several machines.

The process that writes to the folder touches the lock regularly; a lock that has not been touched for a while
belongs to a dead process. Kernel file locks do not work across all cluster file systems. The batch script of a
Slurm job uses the same lock in `guard.sh`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from nemolaunch.errors import NemolaunchError
from nemolaunch.system.atomic_files import write_text

STALE_S = 60
TOUCH_EVERY_S = 15.0


class RunLock:
    """A lock file that this process holds from `take` to `release`.

    Args:
        dead: returns whether the Slurm job with that id is known to be over; its lock is then broken at once.
    """

    def __init__(self, path: Path, dead: Callable[[str], bool] = lambda job: False) -> None:
        self._path = path
        self._is_job_dead = dead
        self._mine = f"local {socket.gethostname()} {os.getpid()}"
        self._released = threading.Event()

    def take(self) -> None:
        """Take the lock, and keep it touched.

        Raises:
            NemolaunchError: another process holds it, or the folder cannot be written.
        """
        for _ in range(2):
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with open(self._path, "x", encoding="utf-8") as file:
                    file.write(self._mine + "\n")
                break
            except FileExistsError:
                self._break_if_stale()
            except OSError as error:
                folder = self._path.parent
                raise NemolaunchError(f"cannot write to --output-dir {folder}: {error.strerror}") from None
        else:
            raise NemolaunchError(f"another process has just locked {self._path.parent}")
        threading.Thread(target=self._touch, name="lock", daemon=True).start()

    def release(self) -> None:
        """Release the lock if this process still holds it."""
        self._released.set()
        if self._holder() == self._mine:
            self._path.unlink(missing_ok=True)

    def _holder(self) -> str:
        try:
            return self._path.read_text(encoding="utf-8").strip()
        except OSError:
            return ""

    def local_holder(self) -> int | None:
        """Return the id of the local process that holds the lock; None if there is none, or it is elsewhere."""
        kind, host, number = (*self._holder().split(), "", "", "")[:3]
        here = kind == "local" and host == socket.gethostname() and number.isdigit()
        return int(number) if here and Path("/proc", number).exists() else None

    def _break_if_stale(self) -> None:
        holder = self._holder()
        if not self._dead(holder) and self._age_s() < STALE_S:
            raise NemolaunchError(
                f"{_in_words(holder)} is writing to {self._path.parent}; end it first, or use another --experiment "
                f"or --output-dir for this run"
            )
        self._path.unlink(missing_ok=True)

    def _dead(self, holder: str) -> bool:
        """Return whether the holder is known to be gone: a process of this machine, or a job that is over."""
        kind, who, rest = (*holder.split(), "", "", "")[:3]
        if kind == "slurm":
            return self._is_job_dead(who)
        return who == socket.gethostname() and rest.isdigit() and not Path("/proc", rest).exists()

    def _age_s(self) -> float:
        """Return the seconds since the lock was last touched, by the clock of its file system."""
        clock = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        write_text(clock, "")
        try:
            return clock.stat().st_mtime - self._path.stat().st_mtime
        except OSError:
            return float("inf")
        finally:
            clock.unlink(missing_ok=True)

    def _touch(self) -> None:
        while not self._released.wait(TOUCH_EVERY_S):
            with contextlib.suppress(OSError):
                os.utime(self._path)


def _in_words(holder: str) -> str:
    kind, _, rest = holder.partition(" ")
    words = rest.split()
    if kind == "slurm" and words:
        return f"Slurm job {words[0]}"
    if kind == "local" and len(words) == 2:
        return f"process {words[1]} on {words[0]}"
    return "another process"
