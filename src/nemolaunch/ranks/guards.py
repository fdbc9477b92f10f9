"""Guards: detect problems while a run is in progress."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

WINDOW = 128
ENOUGH = 32
ENOUGH_LOSSES = 8
SPIKE_DEVIATIONS = 10.0
SPIKE_NATS = 0.5
SPIKE_NORM_FACTOR = 10.0
STARVED_SHARE = 0.25
STARVED_ROWS = 5
SLOW_FACTOR = 2.0
SLOW_ROWS = 5
SLOW_RANK_FACTOR = 1.3
SLOW_RANK_PROBES = 3
SHOWN_RANKS = 4
MAD_TO_SIGMA = 1.4826  # of a normal distribution


@dataclass(frozen=True)
class Notice:
    """A warning of a guard: its kind, one sentence, and whether the problem began with this step."""

    kind: str
    text: str
    begins: bool = True


class LossGuard:
    """A guard that checks the loss and the gradient norm of every step, before the weights are updated.

    - `not finite`: one of them is NaN or infinite.
    - `loss spike`: the loss exceeds the median of recent steps by ten standard deviations and by half a nat. The
      deviation is estimated from the median absolute deviation of the changes from step to step: earlier spikes do not
      affect it, nor does a steady fall.
    - `gradient spike`: the gradient norm is more than ten times the median of recent steps.

    Recent are the last 128 steps, and in the beginning the later half of all steps, but at least 8: the fast descent of
    the first steps would hide a spike.
    """

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._norms: deque[float] = deque(maxlen=WINDOW)
        self._num_steps = 0
        self._before = ""

    def look(self, loss: float | None, grad_norm: float | None) -> Notice | None:
        """Return the problem with this step, or None."""
        seen = self._not_finite(loss, grad_norm) or self._spike(loss) or self._norm_spike(grad_norm)
        self._num_steps += 1
        for values, value in ((self._losses, loss), (self._norms, grad_norm)):
            if value is not None and math.isfinite(value):
                values.append(value)
        if seen is None:
            self._before = ""
            return None
        kind, text = seen
        begins, self._before = kind != self._before, kind
        return Notice(kind, text, begins)

    def _not_finite(self, loss: float | None, grad_norm: float | None) -> tuple[str, str] | None:
        figures = {"loss": loss, "gradient norm": grad_norm}
        wrong = [f"{name} is {v}" for name, v in figures.items() if v is not None and not math.isfinite(v)]
        return ("not finite", " and ".join(wrong)) if wrong else None

    def _recent(self, values: deque[float]) -> list[float]:
        return list(values)[-max(ENOUGH_LOSSES, self._num_steps // 2) :]

    def _spike(self, loss: float | None) -> tuple[str, str] | None:
        recent = self._recent(self._losses)
        if loss is None or len(recent) < ENOUGH_LOSSES:
            return None
        middle = statistics.median(recent)
        falls = [after - before for before, after in pairwise(recent)]
        usual = statistics.median(falls)
        sigma = MAD_TO_SIGMA * statistics.median(abs(fall - usual) for fall in falls) / math.sqrt(2)
        if loss - middle <= max(SPIKE_DEVIATIONS * sigma, SPIKE_NATS):
            return None
        return "loss spike", f"loss {loss:.3f} after a median of {middle:.3f} over {len(recent)} steps"

    def _norm_spike(self, norm: float | None) -> tuple[str, str] | None:
        recent = self._recent(self._norms)
        if norm is None or len(recent) < ENOUGH_LOSSES:
            return None
        middle = statistics.median(recent)
        if middle <= 0 or norm <= SPIKE_NORM_FACTOR * middle:
            return None
        text = f"gradient norm {norm:.3g} after a median of {middle:.3g} over {len(recent)} steps"
        return "gradient spike", text


class PaceGuard:
    """A guard that checks the rows of a metrics file in order, and reports a slowdown once when it begins.

    - `data starvation`: in five consecutive rows, more than a quarter of the step was spent waiting for data.
    - `slow steps`: five consecutive rows took more than twice the median step time.
    """

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=WINDOW)
        self._starved = self._slow = 0

    def look(self, row: dict[str, Any], batch_size: int = 1) -> Iterator[Notice]:
        """Yield the problems that this row shows. Times of steps are compared in proportion to their batch sizes."""
        yield from self._starvation(row)
        yield from self._slowness(row.get("step_time_s"), batch_size)

    def _starvation(self, row: dict[str, Any]) -> Iterator[Notice]:
        waited, step = row.get("data_wait_s"), row.get("step_time_s")
        if not waited or not step or waited <= STARVED_SHARE * step:
            self._starved = 0
            return
        self._starved += 1
        if self._starved == STARVED_ROWS:
            share = f"{min(1.0, waited / step):.0%} of each step is spent waiting for data"
            yield Notice(
                "data starvation", f"{share}; raise --num-workers, or move the data to a faster disk"
            )

    def _slowness(self, step_time_s: float | None, batch_size: int) -> Iterator[Notice]:
        if not step_time_s:
            return
        middle = batch_size * statistics.median(self._times) if len(self._times) >= ENOUGH else math.inf
        self._slow = self._slow + 1 if step_time_s > SLOW_FACTOR * middle else 0
        if self._slow == SLOW_ROWS:
            factor = step_time_s / middle
            yield Notice(
                "slow steps", f"steps take {step_time_s:.3g} s, {factor:.1f} times the earlier median"
            )
        self._times.append(step_time_s / batch_size)


@dataclass(frozen=True)
class Pace:
    """The speed of one rank since the last comparison: seconds per probe, waiting for data, and per step."""

    host: str
    probe_s: float
    data_wait_s: float
    step_s: float


class RankGuard:
    """A guard that compares the ranks, and reports once which of them are slower than the others.

    All ranks of a job take the same time for a step, because they wait for the slowest. Compared are therefore
    the time of a small matrix multiplication and the wait for data on each rank.

    - `slow rank`: three times in a row, a rank took 1.3 times the median for the multiplication, or waited for
      data longer than the median by a quarter of a step.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], int] = {}

    def look(self, paces: Sequence[Pace]) -> Iterator[Notice]:
        """Yield the problems that this comparison shows; `paces` are ordered by rank."""
        if len(paces) < 2:
            return
        probe = statistics.median_low(pace.probe_s for pace in paces)
        wait = statistics.median_low(pace.data_wait_s for pace in paces)
        computing = {
            i: p.probe_s / probe for i, p in enumerate(paces) if p.probe_s > SLOW_RANK_FACTOR * probe
        }
        loading = {
            i: (p.data_wait_s - wait) / p.step_s
            for i, p in enumerate(paces)
            if p.step_s > 0 and p.data_wait_s - wait > STARVED_SHARE * p.step_s
        }
        slow = self._lasting("compute", computing)
        if slow:
            factor = max(computing[rank] for rank in slow)
            yield Notice(
                "slow rank", f"{_named(slow, paces)} computes {factor:.1f} times slower than the others"
            )
        late = self._lasting("data", loading)
        if late:
            share = max(loading[rank] for rank in late)
            text = f"waits for data {share:.0%} of a step longer than the others"
            yield Notice("slow rank", f"{_named(late, paces)} {text}")

    def _lasting(self, what: str, found: dict[int, float]) -> list[int]:
        """Return the ranks that were among `found` three times in a row, this time included."""
        for key in [key for key in self._counts if key[0] == what and key[1] not in found]:
            del self._counts[key]
        for rank in found:
            self._counts[what, rank] = self._counts.get((what, rank), 0) + 1
        return [rank for rank in found if self._counts[what, rank] == SLOW_RANK_PROBES]


def _named(ranks: Sequence[int], paces: Sequence[Pace]) -> str:
    named = ", ".join(f"{rank} on {paces[rank].host}" for rank in ranks[:SHOWN_RANKS])
    more = f" and {len(ranks) - SHOWN_RANKS} more" if len(ranks) > SHOWN_RANKS else ""
    return f"rank{'s' if len(ranks) > 1 else ''} {named}{more}"
