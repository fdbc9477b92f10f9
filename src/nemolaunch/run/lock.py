"""The lock of a run folder, which may be on a file system that several machines share.

Whoever writes the folder touches the lock again and again; one that has not been touched for a while is that
of a process that died. File locks of the kernel do not reach over every cluster's file system. The batch
script of a Slurm job does the same in `guard.sh`.
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
    """Holds a lock file for this process from `take` to `release`.

    Args:
        dead: whether a Slurm job, by its id, is known to be over; a lock it left behind is then broken at once.
    """

    def __init__(self, path: Path, dead: Callable[[str], bool] = lambda job: False) -> None:
        self._path = path
        self._is_job_dead = dead
        self._mine = f"local {socket.gethostname()} {os.getpid()}"
        self._released = threading.Event()

    def take(self) -> None:
        """Take the lock, and keep it touched.

        Raises:
            NemolaunchError: somebody else holds it, or the folder cannot be written.
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
                raise NemolaunchError(f"--output-dir {folder} cannot be written: {error.strerror}") from None
        else:
            raise NemolaunchError(f"another process has just taken {self._path.parent}")
        threading.Thread(target=self._touch, name="lock", daemon=True).start()

    def release(self) -> None:
        """Give it back, if it still is ours."""
        self._released.set()
        if self._holder() == self._mine:
            self._path.unlink(missing_ok=True)

    def _holder(self) -> str:
        try:
            return self._path.read_text(encoding="utf-8").strip()
        except OSError:
            return ""

    def local_holder(self) -> int | None:
        """The process of this machine that holds it; None where there is none, or it is elsewhere."""
        kind, host, number = (*self._holder().split(), "", "", "")[:3]
        here = kind == "local" and host == socket.gethostname() and number.isdigit()
        return int(number) if here and Path("/proc", number).exists() else None

    def _break_if_stale(self) -> None:
        holder = self._holder()
        if not self._dead(holder) and self._age_s() < STALE_S:
            raise NemolaunchError(
                f"{self._path.parent} is being written by {_in_words(holder)}; end that first, or give this "
                f"run another --experiment or --output-dir"
            )
        self._path.unlink(missing_ok=True)

    def _dead(self, holder: str) -> bool:
        """Whether the holder is known to be gone: a process of this machine, or a job that is over."""
        kind, who, rest = (*holder.split(), "", "", "")[:3]
        if kind == "slurm":
            return self._is_job_dead(who)
        return who == socket.gethostname() and rest.isdigit() and not Path("/proc", rest).exists()

    def _age_s(self) -> float:
        """Seconds since it was last touched, by the clock of its file system."""
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
