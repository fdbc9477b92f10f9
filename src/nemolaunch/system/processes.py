"""The processes of a job on this machine, found by an environment variable that all of them inherit.

Process groups are not enough: torchrun starts each rank in its own session, ranks start helpers, and helpers
outlive a rank that is killed.
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
GRACE_S = 10.0  # for a job to exit before it is killed
KILL_TIMEOUT_S = 5.0
PR_SET_PDEATHSIG = 1


def marked(folder: Path) -> dict[str, str]:
    """Return the variable that marks the processes of the job in a run folder."""
    return {VARIABLE: str(folder)}


def members(folder: Path) -> set[int]:
    """Return the ids of the running processes of the job in a run folder, without this process."""
    wanted = f"{VARIABLE}={folder}".encode()
    found = set()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it has exited, or belongs to another user
            if wanted in Path(entry.path, "environ").read_bytes().split(b"\0"):
                found.add(int(entry.name))
    return found - {os.getpid()}


def first_with(folder: Path, variable: str) -> set[int]:
    """Return the members that have a variable in their environment which the processes that started them lack."""
    having = {pid for pid in members(folder) if _has(pid, variable)}
    return {pid for pid in having if _parent(pid) not in having}


def _has(pid: int, variable: str) -> bool:
    with contextlib.suppress(OSError):
        return any(
            entry.startswith(f"{variable}=".encode())
            for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        )
    return False


def children(folder: Path) -> set[int]:
    """Return the members that are children of this process."""
    return {pid for pid in members(folder) if _parent(pid) == os.getpid()}


def _parent(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return None


def terminate(pids: Collection[int]) -> None:
    """Send processes SIGTERM. Those that have exited are ignored."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGTERM)


def wait_until(done: Callable[[], bool], timeout_s: float) -> bool:
    """Wait for a condition. Return whether it became true in time."""
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def kill(folder: Path) -> None:
    """Kill the members until none is left; new ones may start in the meantime."""

    def none_left() -> bool:
        left = members(folder)
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        return not left

    wait_until(none_left, KILL_TIMEOUT_S)


def signal_on_parents_death(number: int) -> None:
    """Have the kernel send this process a signal when its parent exits."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
