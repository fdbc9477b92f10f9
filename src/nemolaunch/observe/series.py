"""A metric over the steps of a run, and its thinning for drawing without losing spikes."""

from __future__ import annotations

import math
import statistics
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

ENOUGH_FOR_QUANTILES = 100_000
ENOUGH_FOR_SMOOTHING = 20_000


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
        """Add a value; for a step that is not after the last one, drop the values from that step on first."""
        if self.steps and step <= self.steps[-1]:
            self.cut(step - 1)
        self.steps.append(step)
        self.values.append(value)

    def extend(self, steps: array[int], values: array[float]) -> None:
        """Add values whose steps ascend and come after the existing ones."""
        self.steps.extend(steps)
        self.values.extend(values)

    def cut(self, last_step: int) -> None:
        """Drop the values after `last_step`."""
        end = bisect_right(self.steps, last_step)
        del self.steps[end:]
        del self.values[end:]

    def at(self, step: int) -> float | None:
        """Return the value at `step`, else at the nearest step before it, else None."""
        index = bisect_right(self.steps, step) - 1
        return self.values[index] if index >= 0 else None

    def sample(self) -> array[float]:
        """Return values to compute quantiles from: all of them, or every n-th of a very long series."""
        return self.values[:: len(self) // ENOUGH_FOR_QUANTILES + 1]

    def median(self) -> float:
        """Return the median of the values, for a very long series that of a sample."""
        return statistics.median(self.sample())


def thinned(series: Series, limit: int = 2000) -> Series:
    """Reduce a series to about `limit` points: the lowest and the highest of each bin, so that spikes survive.

    The first and the last point are always kept. A series that is short enough is returned unchanged.
    """
    count = len(series)
    if count <= limit:
        return series
    bins = max(1, limit // 2)
    thin = Series()
    keep = {0, count - 1}
    for i in range(bins):
        start = count * i // bins
        part = series.values[start : count * (i + 1) // bins]
        keep |= {start + part.index(min(part)), start + part.index(max(part))}
    for index in sorted(keep):
        thin.steps.append(series.steps[index])
        thin.values.append(series.values[index])
    return thin


def smoothing_window(series: Series) -> int:
    """Return the window of `smoothed` in points: a hundredth of the series, at least 3."""
    return max(3, len(series) // 100)


def smoothed(series: Series) -> Series:
    """Average each point with its neighbours on both sides, weighted by exp(-distance / window).

    Averaging in both directions avoids the lag of a running average behind a falling loss. At the ends of the
    series the weights are renormalised. At the beginning, where a loss falls fastest, the window is a tenth of
    the points so far. A very long series is first reduced to means of blocks of a fiftieth of the window, too
    short to make a visible difference.
    """
    window = smoothing_window(series)
    if len(series) > ENOUGH_FOR_SMOOTHING:
        series, window = _blocks(series, window // 50), 50
    decays = [math.exp(-1 / min(window, max(1.0, i / 10))) for i in range(len(series))]
    before = _running(series.values, decays)
    after = _running(series.values[::-1], decays[::-1])
    after.reverse()
    values = array("d")
    for value, (left, left_weight), (right, right_weight) in zip(series.values, before, after, strict=True):
        values.append((left + right - value) / (left_weight + right_weight - 1))
    return Series(series.steps, values)


def _blocks(series: Series, size: int) -> Series:
    """Return the means of blocks of `size` points, each at the step of its middle point."""
    means = Series()
    for start in range(0, len(series), size):
        part = series.values[start : start + size]
        means.steps.append(series.steps[start + len(part) // 2])
        means.values.append(math.fsum(part) / len(part))
    return means


def _running(values: array[float], decays: list[float]) -> list[tuple[float, float]]:
    """Return, for each value, the decayed sum up to and including it, and the sum of the weights."""
    total = weight = 0.0
    sums = []
    for value, decay in zip(values, decays, strict=True):
        total, weight = decay * total + value, decay * weight + 1
        sums.append((total, weight))
    return sums
