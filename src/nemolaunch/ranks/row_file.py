"""Write the metrics file of a run. Only the first rank does, and for a line now and then the process that uploads."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

from nemolaunch.ranks.log import log


class RowFile:
    """An append-only JSON Lines file.

    Each line is written with one system call, so a crash of the process leaves complete lines only, and threads and
    processes of one machine may write concurrently. A line that was cut off when a machine died is terminated when the
    file is reopened.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        end_incomplete_line(path)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._incomplete = self._failing = False

    def write(self, **row: Any) -> None:
        """Append a row. Non-finite values become "nan", "inf" or "-inf", which JSON cannot represent as numbers."""
        plain = {
            key: str(v) if isinstance(v, float) and not math.isfinite(v) else v for key, v in row.items()
        }
        line = ("\n" * self._incomplete + json.dumps(plain, allow_nan=False) + "\n").encode()
        try:
            self._incomplete = os.write(self._file, line) < len(line)
            self._failing = False
        except OSError as error:  # e.g. a full disk: lost metrics are no reason to stop training
            if not self._failing:
                log.info(f"cannot write metrics: {error}")
            self._failing = True

    def event(self, kind: str, step: int, **more: Any) -> None:
        """Append an event with the current time."""
        self.write(event=kind, step=step, time=time.time(), **more)

    def sync(self) -> None:
        """Flush all rows to disk, so that a checkpoint is never ahead of them."""
        os.fsync(self._file)

    def close(self) -> None:
        """Flush and close the file."""
        self.sync()
        os.close(self._file)


def end_incomplete_line(path: Path) -> None:
    """Terminate an incomplete last line of a killed run, so that the next row starts on a new line."""
    try:
        with open(path, "rb+") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
    except FileNotFoundError:
        pass


def count_attempts(path: Path) -> int:
    """Return the number of attempts recorded in a metrics file; 0 if it does not exist."""
    try:
        with open(path, "rb") as file:
            return sum(line.startswith(b'{"event": "start"') for line in file)
    except OSError:
        return 0
