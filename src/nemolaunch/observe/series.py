"""A quantity over the steps of a run, and how it is thinned for drawing without losing its spikes."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Series:
    """Finite values by ascending step."""

    steps: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[tuple[int, float]]:
        return zip(self.steps, self.values, strict=True)

    def append(self, step: int, value: float) -> None:
        """Add a value; one for a step that is not after the last replaces from there on."""
        if self.steps and step <= self.steps[-1]:
            self.cut(step - 1)
        self.steps.append(step)
        self.values.append(value)

    def cut(self, last_step: int) -> None:
        """Drop what comes after `last_step`."""
        end = bisect_right(self.steps, last_step)
        del self.steps[end:]
        del self.values[end:]

    def at(self, step: int) -> float | None:
        """The value of `step`, else of the nearest step before it, else None."""
        index = bisect_right(self.steps, step) - 1
        return self.values[index] if index >= 0 else None


def thinned(series: Series, limit: int = 2000) -> Series:
    """At most about `limit` points: of each stretch the lowest and the highest, so that no spike is lost.

    The first and the last point are always kept. A series that is short enough is returned as it is.
    """
    count = len(series)
    if count <= limit:
        return series
    stretches = max(1, limit // 2)
    thin = Series()
    keep = {0, count - 1}
    for i in range(stretches):
        part = series.values[count * i // stretches : count * (i + 1) // stretches]
        start = count * i // stretches
        keep |= {start + part.index(min(part)), start + part.index(max(part))}
    for index in sorted(keep):
        thin.steps.append(series.steps[index])
        thin.values.append(series.values[index])
    return thin


def smoothing_window(series: Series) -> int:
    """Points over which `smoothed` averages: a hundredth of the series, at least 3."""
    return max(3, len(series) // 100)


def smoothed(series: Series) -> Series:
    """Average of each point's neighbours, weighted by exp(-distance / window), on both sides.

    Looking both ways, it does not lag behind a falling loss as a running average does. Where the series
    ends, the weights of what is there are scaled up to 1.
    """
    decay = math.exp(-1 / smoothing_window(series))
    before = _running(series.values, decay)
    after = _running(series.values[::-1], decay)
    after.reverse()
    values = array("d")
    for value, (left, left_weight), (right, right_weight) in zip(series.values, before, after, strict=True):
        values.append((left + right - value) / (left_weight + right_weight - 1))
    return Series(series.steps, values)


def _running(values: array[float], decay: float) -> list[tuple[float, float]]:
    """Decayed sum of the values up to each, itself included, and the sum of their weights."""
    total = weight = 0.0
    sums = []
    for value in values:
        total, weight = decay * total + value, decay * weight + 1
        sums.append((total, weight))
    return sums
