"""The processes of a job on this machine, found by a variable that every one of them inherits.

Process groups do not suffice: torchrun gives each rank a session of its own, a rank starts helpers, and those
outlive a rank that was killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path

VARIABLE = "NEMOLAUNCH_RUN"
GRACE_S = 10.0  # that a job is given to end by itself
KILL_TIMEOUT_S = 5.0
PR_SET_PDEATHSIG = 1


def marked(folder: Path) -> dict[str, str]:
    """The variable that marks the processes of the job in that run folder."""
    return {VARIABLE: str(folder)}


def members(folder: Path) -> set[int]:
    """Ids of the living processes of the job in that run folder, without the one that asks."""
    wanted = f"{VARIABLE}={folder}".encode()
    found = set()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it has ended, or belongs to somebody else
            if wanted in Path(entry.path, "environ").read_bytes().split(b"\0"):
                found.add(int(entry.name))
    return found - {os.getpid()}


def children(folder: Path) -> set[int]:
    """Those of the members that this process has started itself."""
    return {pid for pid in members(folder) if _parent(pid) == os.getpid()}


def _parent(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return None


def terminate(pids: Collection[int]) -> None:
    """Ask processes to end. Those that have ended already are none of our business."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGTERM)


def wait_until(done: Callable[[], bool], timeout_s: float) -> bool:
    """Whether something came true in time."""
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def kill(folder: Path) -> None:
    """Kill the members until there are none; new ones may start while others die."""

    def none_left() -> bool:
        left = members(folder)
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        return not left

    wait_until(none_left, KILL_TIMEOUT_S)


def signal_on_parents_death(number: int) -> None:
    """Have the kernel send this process a signal when the one that started it is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
