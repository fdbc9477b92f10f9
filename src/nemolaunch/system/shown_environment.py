"""The environment that other processes see of this one, in `/proc/PID/environ`.

The kernel shows the memory in which a program found its variables when it was started, not what it has changed since. A
process that was forked for another job writes that job's variables there, so that it is found by them.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from pathlib import Path

RESERVED = "NEMOLAUNCH_RESERVED"  # a variable of a process that is started to be forked, for room
ROOM_BYTES = 64 << 10
ENV_START, ENV_END = (
    47,
    48,
)  # of the fields of /proc/PID/stat behind the name, from 0 (proc_pid_stat(5): 50 and 51)


def with_room(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment to start a process with whose forks will take over those of other jobs."""
    return {**variables, RESERVED: " " * ROOM_BYTES}


def take_over(variables: Mapping[str, str]) -> None:
    """Make `variables` the environment of this process, and show them to others.

    Raises:
        OSError: it cannot be read where they are, or there is no room for them.
    """
    start, end = _block()
    shown = b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in variables.items())
    if len(shown) > end - start:
        raise OSError(f"{len(shown):,} bytes of environment variables exceed {end - start:,}")
    # first all of them are made anew elsewhere: those of the start are in the memory that is overwritten
    os.environ.clear()
    os.environ.update(variables)
    ctypes.memmove(start, shown.ljust(end - start, b"\0"), end - start)


def _block() -> tuple[int, int]:
    """Return the addresses at which the variables of the start begin and end."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[ENV_START]), int(fields[ENV_END])
    if not start or end <= start:
        raise OSError("/proc/self/stat does not say where the environment is")
    return start, end
