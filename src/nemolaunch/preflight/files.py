"""The speed of a file system from this node."""

from __future__ import annotations

import os
import time
from pathlib import Path

from nemolaunch.preflight.rows import Files

SIZE_BYTES = 64 << 20
BLOCK_BYTES = 4 << 20


def run_folder(folder: Path, name: str) -> Files:
    """Write a file in the run folder, flush it, read it back, and delete it.

    Args:
        name: of this node, so that all nodes write at the same time, as they do when a checkpoint is saved.
    """
    path = folder / f"speed-{name}-{os.getpid()}"
    try:
        written = _write(path)
        return Files(
            what="run folder", path=str(folder), write_bytes_per_s=written, read_bytes_per_s=_read(path, 0)
        )
    finally:
        path.unlink(missing_ok=True)


def data(path: Path, share: float) -> Files:
    """Read a part of a data file, which begins at this share of it: another one on every node."""
    offset = int(max(0, path.stat().st_size - SIZE_BYTES) * share)
    return Files(what="data", path=str(path), read_bytes_per_s=_read(path, offset))


def _write(path: Path) -> float:
    block = os.urandom(BLOCK_BYTES)  # file systems compress zeros
    start = time.perf_counter()
    with open(path, "wb", buffering=0) as file:
        for _ in range(SIZE_BYTES // BLOCK_BYTES):
            file.write(block)
        os.fsync(file.fileno())
    return SIZE_BYTES / (time.perf_counter() - start)


def _read(path: Path, offset: int) -> float | None:
    """Return the bytes read per second, not from this node's cache; None for an empty file."""
    with open(path, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(offset)
        done, start = 0, time.perf_counter()
        while done < SIZE_BYTES and (block := file.read(BLOCK_BYTES)):
            done += len(block)
        return done / (time.perf_counter() - start) if done else None
