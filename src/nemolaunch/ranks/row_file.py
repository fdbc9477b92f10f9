"""The one metrics file of a run, as its one writer sees it."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

from nemolaunch.ranks.log import log


class RowFile:
    """A JSON Lines file that is only appended to, by one writer, a whole line at a time.

    A line is one call of the system, so that what a crash of the process leaves is whole lines, and threads
    may write too. A line that a dying machine tore is closed when the file is opened again.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        end_torn_line(path)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._torn = self._failing = False

    def write(self, **row: Any) -> None:
        """Append a row. What is not finite becomes "nan", "inf" or "-inf": JSON has no numbers for them."""
        plain = {
            key: str(v) if isinstance(v, float) and not math.isfinite(v) else v for key, v in row.items()
        }
        line = ("\n" * self._torn + json.dumps(plain, allow_nan=False) + "\n").encode()
        try:
            self._torn = os.write(self._file, line) < len(line)
            self._failing = False
        except OSError as error:  # a full disk: lost figures are no reason to lose the training
            if not self._failing:
                log.info(f"the metrics cannot be written: {error}")
            self._failing = True

    def event(self, kind: str, step: int, **more: Any) -> None:
        """Append something that happened now."""
        self.write(event=kind, step=step, time=time.time(), **more)

    def sync(self) -> None:
        """Make sure that all rows are on the disk, so that a checkpoint is never ahead of them."""
        os.fsync(self._file)

    def close(self) -> None:
        """No more rows."""
        self.sync()
        os.close(self._file)


def end_torn_line(path: Path) -> None:
    """Close a line that a killed run left half-written, so that ours starts on its own."""
    try:
        with open(path, "rb+") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
    except FileNotFoundError:
        pass


def count_starts(path: Path) -> int:
    """How many starts a metrics file records; 0 where there is none."""
    try:
        with open(path, "rb") as file:
            return sum(line.startswith(b'{"event": "start"') for line in file)
    except OSError:
        return 0
