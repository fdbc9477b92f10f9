"""A real limit of memory for one process, so that the kernel kills it as on a node whose memory runs out."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def why_not() -> str | None:
    """Why memory cannot be limited here, or None."""
    parent = _parent()
    if parent is None or not os.access(parent, os.W_OK):
        return "this machine has no memory cgroup that can be written"
    return None


class MemoryLimit:
    """Allows a process `more_bytes` beyond what it has from now on."""

    def __init__(self, pid: int, more_bytes: int) -> None:
        parent = _parent()
        assert parent is not None
        self.folder = parent / f"nemolaunch-test-{pid}"
        self.folder.mkdir()
        limits = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max", "memory.swap.max")
        for name in limits:
            with contextlib.suppress(OSError):
                path = self.folder / name
                if path.exists():
                    path.write_text("0" if "swap.max" in name else str(more_bytes))
        (self.folder / "cgroup.procs").write_text(str(pid))

    def remove(self) -> None:
        """Once the process is gone."""
        with contextlib.suppress(OSError):
            self.folder.rmdir()


def _parent() -> Path | None:
    """Of this process, in either version of cgroups; memory that it has already is not counted anew."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            return ROOT / "memory" / path.lstrip("/")
    if (ROOT / "cgroup.controllers").exists() and "memory" in (ROOT / "cgroup.subtree_control").read_text():
        return ROOT
    return None
