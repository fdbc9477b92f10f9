"""Notes of how far a run is, for commands that wait for its data."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from nemolaunch.data.unfinished import PACE, Pace
from nemolaunch.system.atomic_files import write_json
from nemolaunch.system.plain_values import to_plain
from nemolaunch.tokenization.request import Tick

NOTE_EVERY_S = 5.0


class PaceNotes:
    """Passes progress on, and writes it into the work folder every few seconds."""

    def __init__(self, folder: Path, total_bytes: int, report: Callable[[Tick], None]) -> None:
        self.folder, self.total_bytes, self.report = folder, total_bytes, report
        self.begin, self.noted = time.monotonic(), -NOTE_EVERY_S
        self.done_bytes = self.new_bytes = 0

    def advance(self, tick: Tick) -> None:
        """Add finished work. A tick without documents is work that an earlier process has done."""
        self.done_bytes += tick.bytes
        self.new_bytes += tick.bytes if tick.documents else 0
        now = time.monotonic()
        if now - self.noted >= NOTE_EVERY_S:
            self.noted = now
            note(self.folder, Pace(self.total_bytes, self.done_bytes, self.new_bytes, now - self.begin))
        self.report(tick)


def note(folder: Path, pace: Pace) -> None:
    """Write how far a run is. Nothing depends on it: a full disk is for others to report."""
    with contextlib.suppress(OSError):
        write_json(folder / PACE, to_plain(pace), durable=False)
