"""Helpers shared by the rules: constructing findings and fixes, and finding valid values near an invalid one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nemolaunch.check.codes import RULES
from nemolaunch.findings import Finding, Fix, Severity
from nemolaunch.job import spec_of
from nemolaunch.resolve import Resolved


def error(code: str, message: str, *fixes: Fix, about: str = "") -> Finding:
    """Create a finding that prevents the launch."""
    return Finding(
        code=code, severity=Severity.ERROR, message=message, rule=RULES[code], fixes=fixes, about=about
    )


def warning(code: str, message: str, *fixes: Fix, about: str = "") -> Finding:
    """Create a finding about a job that runs, but not as requested or not well."""
    return Finding(
        code=code, severity=Severity.WARNING, message=message, rule=RULES[code], fixes=fixes, about=about
    )


def note(code: str, message: str, *fixes: Fix, about: str = "") -> Finding:
    """Create a finding that is only worth knowing."""
    return Finding(
        code=code, severity=Severity.NOTE, message=message, rule=RULES[code], fixes=fixes, about=about
    )


def fix(**changes: Any) -> Fix:
    """Create a fix that changes these fields together."""
    return Fix(
        changes=changes,
        flags={name: flag(name) for name in changes},
        negated=frozenset(
            name for name, v in changes.items() if v is False and spec_of(name).default is not v
        ),
    )


def without(resolved: Resolved, *names: str) -> Fix:
    """Create a fix that drops those of these flags that are set."""
    given = {name: resolved.job.get(name) for name in names}
    return fix(**{name: _default(name) for name, value in given.items() if value != _default(name)})


def _default(name: str) -> Any:
    return spec_of(name).default


def each(name: str, values: Iterable[Any]) -> tuple[Fix, ...]:
    """Create one fix for each value of a single field."""
    return tuple(fix(**{name: value}) for value in values)


def flag(name: str) -> str:
    """Return the command-line spelling of a field: its short form if it has one."""
    spec = spec_of(name)
    return spec.short or spec.flag


def shown(name: str, value: object) -> str:
    """Return a flag with its value, as it would be typed."""
    return f"{flag(name)} {value}"


def no_effect(names: Iterable[str]) -> str:
    """Return `--a has no effect` or `--a and --b have no effect`, for fields by name."""
    flags = [flag(name) for name in names]
    return f"{' and '.join(flags)} {'has' if len(flags) == 1 else 'have'} no effect"


def multiples_near(value: int, unit: int) -> tuple[int, ...]:
    """Return the nearest positive multiples of `unit` below and above `value`, or just `value` if it is one."""
    lower = max(value, 0) // unit * unit
    if lower == value > 0:
        return (value,)
    return tuple(v for v in (lower, lower + unit) if v > 0)


def around(value: int, good: Iterable[int]) -> tuple[int, ...]:
    """Return the nearest of the valid values below and above `value`."""
    values = sorted(good)
    below = [v for v in values if v < value][-1:]
    above = [v for v in values if v > value][:1]
    return (*below, *above)


def divisors(number: int) -> list[int]:
    """Return all divisors in ascending order."""
    low = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return low + [number // d for d in reversed(low) if d * d != number]


@dataclass(frozen=True)
class ParallelSizes:
    """The parallel sizes of a job, each at least 1.

    Attributes:
        etp: expert tensor parallel size; defaults to tp.
        vpp: virtual stages per pipeline stage; None for a single one.
    """

    tp: int
    pp: int
    vpp: int | None
    cp: int
    ep: int
    etp: int
    world: int

    @property
    def replica(self) -> int:
        """Processes per copy of the model."""
        return self.tp * self.pp * self.cp

    @property
    def expert_replica(self) -> int:
        """Processes per copy of the experts."""
        return self.etp * self.ep * self.pp

    @property
    def unit(self) -> int:
        """The number of processes must be a multiple of this."""
        return math.lcm(self.replica, self.expert_replica)

    @property
    def data_parallel(self) -> int:
        """Copies of the model; at least 1, so that other rules can still be evaluated."""
        return max(1, self.world // self.replica)


def fits_world(resolved: Resolved, processes: int) -> bool:
    """Return whether the world size is a multiple of `processes`; always True where it adapts to the layout."""
    adapts = resolved.device == "cpu" and "num_gpus" in resolved.computed
    return adapts or resolved.world_size % processes == 0


def sizes(resolved: Resolved) -> ParallelSizes:
    """Return the job's parallel sizes."""
    p = resolved.job.parallelism
    return ParallelSizes(
        tp=p.tensor_model_parallel_size,
        pp=p.pipeline_model_parallel_size,
        vpp=None if p.virtual_pipeline_model_parallel_size == 1 else p.virtual_pipeline_model_parallel_size,
        cp=p.context_parallel_size,
        ep=p.expert_model_parallel_size,
        etp=p.expert_tensor_parallel_size or p.tensor_model_parallel_size,
        world=resolved.world_size,
    )
