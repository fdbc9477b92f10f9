"""The batch size of each step: constant, or raised in steps from a small one (`--rampup-batch-size`).

The rule is Megatron-LM's (`RampupBatchsizeNumMicroBatchesCalculator` in num_microbatches_calculator.py): the batch size
depends on the samples consumed so far. Steps are counted from 0.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

# A ramp of more increments than this is a mistake, and would make the function slow
MOST_INCREMENTS = 1_000


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """A batch size that grows from `start` by `increment`, at equal distances over the first `samples` samples."""

    start: int
    increment: int
    samples: int

    def reaches(self, full: int) -> bool:
        """Return whether the ramp begins below the full batch size, and reaches it in whole increments."""
        rise = full - self.start
        return rise > 0 and rise % self.increment == 0 and rise // self.increment <= MOST_INCREMENTS

    def size(self, full: int, consumed: int) -> int:
        """Return the batch size after `consumed` samples, in Megatron's own floating point numbers."""
        if consumed > self.samples:
            return full
        per_increment = self.samples / ((full - self.start) // self.increment)
        return min(full, self.start + int(consumed / per_increment) * self.increment)

    def __str__(self) -> str:
        return f"{self.start}:{self.increment}:{self.samples}"


def ramp_of(text: str | None) -> Ramp | None:
    """Return the ramp START:INCREMENT:SAMPLES; None for anything else."""
    if text is None or not re.fullmatch(r"[0-9]{1,18}:[0-9]{1,18}:[0-9]{1,18}", text):
        return None
    start, increment, samples = map(int, text.split(":"))
    return Ramp(start=start, increment=increment, samples=samples) if min(start, increment, samples) else None


@dataclass(frozen=True)
class _Stretch:
    """Steps of one batch size: the first of them, and the samples consumed before it."""

    step: int
    samples: int
    size: int


@dataclass(frozen=True, kw_only=True)
class BatchSizes:
    """The batch size of each step, and the samples consumed after any number of steps.

    Attributes:
        full: the global batch size; that of all steps without a ramp.
        ramp: how it is reached.
        done_steps, done_samples: steps and samples of the training before, where that had other batch sizes.
    """

    full: int
    ramp: Ramp | None = None
    done_steps: int = 0
    done_samples: int = 0

    @property
    def constant(self) -> bool:
        """Whether all steps have had and have the full batch size."""
        return self.ramp is None and not self.done_steps

    @cached_property
    def _stretches(self) -> tuple[_Stretch, ...]:
        return tuple(self._find_stretches())

    def _find_stretches(self) -> Iterator[_Stretch]:
        step, samples = self.done_steps, self.done_samples
        while True:
            size = self._size(samples)
            yield _Stretch(step, samples, size)
            if size == self.full:
                return
            steps = -(-(self._end(samples, size) - samples) // size)
            step, samples = step + steps, samples + steps * size

    def _size(self, consumed: int) -> int:
        return self.full if self.ramp is None else self.ramp.size(self.full, consumed)

    def _end(self, consumed: int, size: int) -> int:
        """Return the smallest number of samples, above `consumed`, for which the batch is larger than `size`."""
        assert self.ramp is not None
        low, high = (
            consumed,
            self.ramp.samples + 1,
        )  # the batch has that size at `low`, a larger one at `high`
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._size(middle) == size else (low, middle)
        return high

    def size(self, step: int) -> int:
        """Return the batch size of a step."""
        return self._at(step).size

    def samples(self, steps: int) -> int:
        """Return the samples consumed after that many steps of the whole training."""
        if steps < self.done_steps:
            return self.done_samples * max(0, steps) // self.done_steps
        found = self._at(steps)
        return found.samples + (max(0, steps) - found.step) * found.size

    def _at(self, step: int) -> _Stretch:
        number = bisect.bisect_right(self._stretches, step, key=lambda found: found.step)
        return self._stretches[max(0, number - 1)]

    def steps_within(self, samples: int) -> int:
        """Return the largest number of steps that consume no more than these samples."""
        number = bisect.bisect_right(self._stretches, samples, key=lambda found: found.samples)
        found = self._stretches[max(0, number - 1)]
        steps = found.step + max(0, samples - found.samples) // max(1, found.size)
        following = self._stretches[number : number + 1]
        return min(steps, following[0].step) if following else steps

    def steps_for(self, samples: int) -> int:
        """Return the smallest number of steps that consume at least these samples."""
        steps = self.steps_within(samples)
        return steps if self.samples(steps) >= samples else steps + 1

    @property
    def ramp_steps(self) -> int:
        """Steps before the first with the full batch size."""
        return self._stretches[-1].step


def batch_sizes_of(values: Mapping[str, Any]) -> BatchSizes:
    """Return the batch sizes of a training from scratch, by its job's values; without a ramp that is not valid."""
    full = max(1, values.get("global_batch_size") or 1)
    ramp = ramp_of(values.get("rampup_batch_size"))
    return BatchSizes(full=full, ramp=ramp if ramp and ramp.reaches(full) else None)
