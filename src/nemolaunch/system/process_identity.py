"""Which process: an id alone may belong to another one later, or on another machine."""

from __future__ import annotations

import functools
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcessIdentity:
    """A process, told apart from all others.

    Attributes:
        start: when it started, in clock ticks since the machine booted; empty if not known.
        boot: the boot of the machine and the process namespace (of a container); empty if not known.
    """

    host: str
    pid: int
    start: str = ""
    boot: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.host, str(self.pid), self.start, self.boot)))

    @classmethod
    def parse(cls, text: str) -> ProcessIdentity | None:
        """Return the process that such a text names; None if it names none."""
        host, pid, start, boot = (*text.split(), "", "", "", "")[:4]
        return cls(host, int(pid), start, boot) if pid.isascii() and pid.isdigit() else None

    @property
    def is_here(self) -> bool:
        """Whether it is, or was, a process that this one could see."""
        if self.boot:
            return self.host == socket.gethostname() and self.boot == this_boot()
        return self.host == socket.gethostname()

    @property
    def is_alive(self) -> bool | None:
        """Whether it is running; None if that cannot be seen from here."""
        if self.is_here:
            now = start_of(self.pid)
            return now is not None and (not self.start or now == self.start)
        if self.host == socket.gethostname() and self.boot.split("/")[0] not in (
            "",
            this_boot().split("/")[0],
        ):
            return False  # the machine has been restarted since
        return None


def this_process() -> ProcessIdentity:
    """Return the identity of this process."""
    pid = os.getpid()
    return ProcessIdentity(socket.gethostname(), pid, start_of(pid) or "", this_boot())


def start_of(pid: int) -> str | None:
    """Return when a process of this machine started, in clock ticks since boot; None if there is none, or a zombie."""
    try:
        # proc(5): fields 3 (state) and 22 (starttime); field 2 is a name, which may contain spaces and parentheses
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else fields[19]


def begin_of(pid: int) -> float | None:
    """Return when a process of this machine started, in Unix seconds; None if there is none, or a zombie."""
    ticks = start_of(pid)
    if ticks is None:
        return None
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return booted + int(ticks) / os.sysconf("SC_CLK_TCK")


@functools.cache
def this_boot() -> str:
    """Return an id of this boot of the machine and of this process namespace; empty if there is none."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""
