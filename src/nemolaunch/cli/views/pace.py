"""A run's recent speed, steady enough to read while it goes on."""

from __future__ import annotations

import statistics
from collections import deque
from typing import Any

WINDOW = 50  # rows of metrics


class Pace:
    """Takes the rows of a run's metrics that have a loss, and says how fast it is and how long it will take.

    A single slow step, as the one after a checkpoint, moves neither figure much; what saving and validating
    take is part of the time left.
    """

    def __init__(self) -> None:
        self._rows: deque[dict[str, Any]] = deque(maxlen=WINDOW)

    def add(self, row: dict[str, Any]) -> None:
        """One more row, of the latest step."""
        if self._rows and row["step"] <= self._rows[-1]["step"]:  # a restart went back to a checkpoint
            self._rows.clear()
        self._rows.append(row)

    def tokens_per_s(self) -> float:
        """Median of the recent steps."""
        return statistics.median(float(row.get("tokens_per_s") or 0) for row in self._rows)

    def left_s(self, steps: int) -> float:
        """Seconds until step number `steps` has ended, at the recent mean of wall time a step."""
        first, last = self._rows[0], self._rows[-1]
        done = last["step"] - first["step"]
        each = (last["time"] - first["time"]) / done if done else float(last.get("step_time_s") or 0)
        return float(max(0, steps - last["step"]) * each)
