"""Files of Megatron's index that a kill left incomplete, which Megatron would take for finished ones."""

from __future__ import annotations

import ast
import math
import struct
import time
from pathlib import Path

NUMPY_MAGIC = b"\x93NUMPY"
BEING_WRITTEN_S = 60  # a file changed since then may belong to a job that is building the same index now


def remove_incomplete(folder: Path) -> list[Path]:
    """Remove arrays that are shorter than their header says, and what is no array. Return their paths.

    Megatron writes the arrays in place and checks only that they exist, so that every later job would fail. A file that
    does not begin as an array would be unpickled, whoever put it there and whenever.
    """
    now = time.time()
    found = [path for path in sorted(folder.glob("*.npy")) if not _is_complete(path)]
    found = [path for path in found if _is_foreign(path) or now - path.stat().st_mtime > BEING_WRITTEN_S]
    for path in found:
        path.unlink(missing_ok=True)
    return found


def _is_foreign(path: Path) -> bool:
    with open(path, "rb") as file:
        return not NUMPY_MAGIC.startswith(file.read(len(NUMPY_MAGIC)))


def _is_complete(path: Path) -> bool:
    """Return whether a `.npy` file has all the bytes of its array (NumPy's format, NEP 1)."""
    with open(path, "rb") as file:
        start = file.read(12)
        if len(start) < 12 or not start.startswith(NUMPY_MAGIC):
            return False
        (length,) = struct.unpack("<H" if start[6] == 1 else "<I", start[8 : 10 if start[6] == 1 else 12])
        begin = (10 if start[6] == 1 else 12) + length
        file.seek(begin - length)
        header = file.read(length)
    try:
        described = ast.literal_eval(header.decode("latin1"))
        num_bytes = math.prod(described["shape"]) * int(described["descr"][2:])
    except (ValueError, SyntaxError, KeyError, TypeError):
        return False
    return path.stat().st_size == begin + num_bytes
