"""Files of an output that grows in its work folder, and low-level writing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

# Maximum for one call of writev (IOV_MAX on Linux).
MOST_BUFFERS = 1024


def grown_path(folder: Path, output: int, end: str) -> Path:
    """Return the path of an output's file in the work folder: `bin`, `seq`, `doc`, and at the end `idx`."""
    return folder / f"output{output}.{end}"


def write_all(fd: int, buffers: list[Any]) -> None:
    """Write all bytes of contiguous buffers, one after another, at the file's position."""
    views = [memoryview(buffer).cast("B") for buffer in buffers]
    while views:
        written = os.writev(fd, views[:MOST_BUFFERS])
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if views:
            views[0] = views[0][written:]


def append_range(source: int, target: int, count: int) -> None:
    """Copy the first `count` bytes of one open file to another's position, inside the kernel if possible."""
    done = 0
    while done < count:
        try:
            copied = os.copy_file_range(source, target, count - done, done)
        except OSError:
            copied = 0
        if copied == 0:
            _copy(source, target, done, count)
            return
        done += copied


def _copy(source: int, target: int, done: int, count: int) -> None:
    while done < count:
        block = os.pread(source, min(1 << 20, count - done), done)
        if not block:
            raise OSError(f"the copied file ends at {done} bytes, {count} were expected")
        write_all(target, [block])
        done += len(block)
