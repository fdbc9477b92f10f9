"""The recent speed of a run, smoothed for display."""

from __future__ import annotations

import statistics
from collections import deque
from typing import Any

WINDOW = 50  # rows of metrics


class RecentSpeed:
    """Speed and remaining time of a run, computed from the metrics rows that have a loss.

    A single slow step, such as the one after a checkpoint, has little effect on either; the remaining time includes
    saving and validating.
    """

    def __init__(self) -> None:
        self._rows: deque[dict[str, Any]] = deque(maxlen=WINDOW)

    def add(self, row: dict[str, Any]) -> None:
        """Add the row of the latest step."""
        if self._rows and row["step"] <= self._rows[-1]["step"]:  # a restart went back to a checkpoint
            self._rows.clear()
        self._rows.append(row)

    def tokens_per_s(self) -> float:
        """Return the median of the recent steps."""
        return statistics.median(float(row.get("tokens_per_s") or 0) for row in self._rows)

    def left_s(self, steps: int) -> float:
        """Return the seconds until step number `steps` ends, at the recent mean wall time per step."""
        first, last = self._rows[0], self._rows[-1]
        done = last["step"] - first["step"]
        each = (last["time"] - first["time"]) / done if done else float(last.get("step_time_s") or 0)
        return float(max(0, steps - last["step"]) * each)
