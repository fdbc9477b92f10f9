"""Notices, while a run goes on, that something is not as it should be."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterator
from typing import Any

WINDOW = 128
ENOUGH = 32
SPIKE_DEVIATIONS = 10.0
SPIKE_NATS = 0.5
STARVED_SHARE = 0.25
STARVED_ROWS = 5
SLOW_FACTOR = 2.0
SLOW_ROWS = 5
MAD_TO_SIGMA = 1.4826  # of a normal distribution


class Guards:
    """Looks at the rows of a metrics file in order, and says once what begins to be wrong.

    - `not finite`: loss or gradient norm is NaN or infinite.
    - `loss spike`: the loss exceeds the median of the last 128 rows by ten of their standard deviations
      (estimated by the median absolute deviation, which earlier spikes do not move) and by half a nat.
    - `data starvation`: five rows in a row waited for data for more than a quarter of the step.
    - `slow`: five rows in a row took twice the median step time.
    """

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._times: deque[float] = deque(maxlen=WINDOW)
        self._bad = self._spiking = False
        self._starved = self._slow = 0

    def seen(self, row: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """(kind, sentence) of what this row shows."""
        yield from self._not_finite(row)
        yield from self._spike(row["loss"])
        yield from self._starvation(row)
        yield from self._slowness(row.get("step_time_s"))

    def _not_finite(self, row: dict[str, Any]) -> Iterator[tuple[str, str]]:
        wrong = [
            f"{key} is {row[key]}"
            for key in ("loss", "grad_norm")
            if isinstance(row.get(key), float) and not math.isfinite(row[key])
        ]
        if wrong and not self._bad:
            yield "not finite", " and ".join(wrong)
        self._bad = bool(wrong)

    def _spike(self, loss: float | None) -> Iterator[tuple[str, str]]:
        if loss is None or not math.isfinite(loss):
            return
        spiking = False
        if len(self._losses) >= ENOUGH:
            middle = statistics.median(self._losses)
            sigma = MAD_TO_SIGMA * statistics.median(abs(value - middle) for value in self._losses)
            spiking = loss - middle > max(SPIKE_DEVIATIONS * sigma, SPIKE_NATS)
            if spiking and not self._spiking:
                yield (
                    "loss spike",
                    f"loss {loss:.3f} after a median of {middle:.3f} over {len(self._losses)} rows",
                )
        self._spiking = spiking
        self._losses.append(loss)

    def _starvation(self, row: dict[str, Any]) -> Iterator[tuple[str, str]]:
        waited, step = row.get("data_wait_s"), row.get("step_time_s")
        if not waited or not step or waited <= STARVED_SHARE * step:
            self._starved = 0
            return
        self._starved += 1
        if self._starved == STARVED_ROWS:
            share = f"{min(1.0, waited / step):.0%} of each step goes into waiting for data"
            yield "data starvation", f"{share}; raise --num-workers, or move the data to a faster disk"

    def _slowness(self, step_time_s: float | None) -> Iterator[tuple[str, str]]:
        if not step_time_s:
            return
        middle = statistics.median(self._times) if len(self._times) >= ENOUGH else math.inf
        self._slow = self._slow + 1 if step_time_s > SLOW_FACTOR * middle else 0
        if self._slow == SLOW_ROWS:
            yield (
                "slow",
                f"steps take {step_time_s:.3g} s, {step_time_s / middle:.1f} times the median before",
            )
        self._times.append(step_time_s)
