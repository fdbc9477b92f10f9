"""The processes of a job on this machine, found by environment variables that all of them inherit.

The id of the run folder decides: a moved run finds its processes, a copy never finds those of the original. The path
only serves for folders without an id, of earlier versions.

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
from typing import Any

from nemolaunch.system import folder_identity
from nemolaunch.system.process_identity import start_of

VARIABLES = VARIABLE, ID_VARIABLE = "NEMOLAUNCH_RUN", "NEMOLAUNCH_RUN_ID"
GRACE_S = 10.0  # for a job to exit before it is killed
SAVE_SIGNAL = signal.SIGUSR1  # asks a rank to save a checkpoint after its step, with the others, and to exit
KILL_TIMEOUT_S = 5.0
PR_SET_PDEATHSIG = 1
OF_TORCHRUN = "TORCHELASTIC_RUN_ID"  # torchrun sets this variable for ranks


def marked(folder: Path) -> dict[str, str]:
    """Return the variables that mark the processes of the job in a run folder."""
    own = folder_identity.current(folder)
    return {VARIABLE: str(folder), **({ID_VARIABLE: own.id} if own else {})}


def members(folder: Path) -> set[int]:
    """Return the ids of the running processes of the job in a run folder, without this process."""
    own = folder_identity.current(folder)
    if own is not None:
        return members_of(own.id)
    return set() if folder_identity.is_copy(folder) else _with(VARIABLE, str(folder), without=ID_VARIABLE)


def members_of(run_id: str) -> set[int]:
    """Return the ids of the running processes of the job of the run with that id, without this process."""
    return _with(ID_VARIABLE, run_id)


def _with(name: str, value: str, without: str | None = None) -> set[int]:
    """Return the ids of other running processes that have a variable, and have not another."""
    wanted, unwanted = os.fsencode(f"{name}={value}"), without and f"{without}=".encode()
    found = set()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it has exited, or belongs to another user
            words = _environment(int(entry.name))
            other = unwanted and any(word.startswith(unwanted) for word in words)
            if wanted in words and not other and start_of(int(entry.name)) is not None:
                found.add(int(entry.name))
    return found - {os.getpid()}


def first_with(folder: Path, variable: str) -> set[int]:
    """Return the members that have a variable in their environment which the processes that started them lack."""
    having = {pid for pid in members(folder) if _has(pid, variable)}
    return {pid for pid in having if _parent(pid) not in having}


def first(folder: Path) -> set[int]:
    """Return the members that no other member started."""
    found = members(folder)
    return {pid for pid in found if _parent(pid) not in found}


def runs_module(pid: int, module: str) -> bool:
    """Return whether a process was started as `python -m MODULE`."""
    with contextlib.suppress(OSError):
        return os.fsencode(module) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return False


def _has(pid: int, variable: str) -> bool:
    with contextlib.suppress(OSError):
        return any(word.startswith(f"{variable}=".encode()) for word in _environment(pid))
    return False


def _environment(pid: int) -> list[bytes]:
    """Return `NAME=VALUE` of each variable that a process was started with."""
    return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


def children(run_id: str) -> set[int]:
    """Return the members that are children of this process."""
    return {pid for pid in members_of(run_id) if _parent(pid) == os.getpid()}


def _parent(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return None


def signal_name(number: int) -> str:
    """Return a signal's name, such as `SIGKILL`; `signal 99` for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def terminate(pids: Collection[int], number: int = signal.SIGTERM) -> None:
    """Send processes SIGTERM, or another signal that asks them to end, and wake those that are suspended.

    Those that have exited are ignored.
    """
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
            os.kill(pid, signal.SIGCONT)


def wait_until(done: Callable[[], bool], timeout_s: float) -> bool:
    """Wait for a condition. Return whether it became true in time."""
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def kill(folder: Path, run_id: str | None = None) -> None:
    """Kill the members until none is left; new ones may start in the meantime.

    Args:
        run_id: of the run, whose folder may have been moved since.
    """

    def none_left() -> bool:
        left = members_of(run_id) if run_id else members(folder)
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        return not left

    wait_until(none_left, KILL_TIMEOUT_S)


def end_helpers_with_this() -> None:
    """Have helpers that are forked with `multiprocessing` killed when the process that forks them is.

    They would keep its memory, and files such as those of GPUs, and torchrun and some Slurm clusters do not know them.
    Helpers that are spawned call `signal_on_parents_death` themselves.
    """
    from multiprocessing.process import BaseProcess

    begin = BaseProcess._bootstrap  # type: ignore[attr-defined]

    def bootstrap(process: BaseProcess, *args: Any, **kwargs: Any) -> Any:
        signal_on_parents_death(signal.SIGKILL)
        return begin(process, *args, **kwargs)

    BaseProcess._bootstrap = bootstrap  # type: ignore[attr-defined]


def signal_on_parents_death(number: int) -> None:
    """Have the kernel send this process a signal when its parent exits."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
