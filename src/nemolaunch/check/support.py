"""What the rules share: how a finding is made, and which values lie near a bad one."""

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
    """A finding that stops a launch."""
    return Finding(
        code=code, severity=Severity.ERROR, message=message, rule=RULES[code], fixes=fixes, about=about
    )


def warning(code: str, message: str, *fixes: Fix, about: str = "") -> Finding:
    """A finding about something that runs, though not as asked."""
    return Finding(
        code=code, severity=Severity.WARNING, message=message, rule=RULES[code], fixes=fixes, about=about
    )


def note(code: str, message: str, *fixes: Fix, about: str = "") -> Finding:
    """Something worth knowing."""
    return Finding(
        code=code, severity=Severity.NOTE, message=message, rule=RULES[code], fixes=fixes, about=about
    )


def fix(**changes: Any) -> Fix:
    """A fix that changes these fields together."""
    return Fix(
        changes=changes,
        flags={name: flag(name) for name in changes},
        said=frozenset(name for name, v in changes.items() if v is False and spec_of(name).default is not v),
    )


def without(resolved: Resolved, *names: str) -> Fix:
    """A fix that takes these flags back, as far as they are given."""
    given = {name: resolved.job.get(name) for name in names}
    return fix(**{name: _nothing(name) for name, value in given.items() if value != _nothing(name)})


def _nothing(name: str) -> Any:
    return spec_of(name).default


def each(name: str, values: Iterable[Any]) -> tuple[Fix, ...]:
    """One fix per value of a single field."""
    return tuple(fix(**{name: value}) for value in values)


def flag(name: str) -> str:
    """How a field is spelt on the command line: its short form where it has one."""
    spec = spec_of(name)
    return spec.short or spec.flag


def shown(name: str, value: object) -> str:
    """A flag with its value, as it would be typed."""
    return f"{flag(name)} {value}"


def multiples_near(value: int, unit: int) -> tuple[int, ...]:
    """The positive multiples of `unit` next below and above `value`; only itself where it is one."""
    lower = max(value, 0) // unit * unit
    if lower == value > 0:
        return (value,)
    return tuple(v for v in (lower, lower + unit) if v > 0)


def around(value: int, good: Iterable[int]) -> tuple[int, ...]:
    """Those of the good values that are next below and next above."""
    values = sorted(good)
    below = [v for v in values if v < value][-1:]
    above = [v for v in values if v > value][:1]
    return (*below, *above)


def divisors(number: int) -> list[int]:
    """All divisors, ascending."""
    low = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return low + [number // d for d in reversed(low) if d * d != number]


@dataclass(frozen=True)
class Sizes:
    """The parallel sizes of a job; all are at least 1.

    Attributes:
        etp: tensor parallel size within an expert, by default tp.
        vpp: virtual stages, or None; one virtual stage is none.
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
        """Processes of one copy of the model."""
        return self.tp * self.pp * self.cp

    @property
    def expert_replica(self) -> int:
        """Processes of one copy of the experts."""
        return self.etp * self.ep * self.pp

    @property
    def unit(self) -> int:
        """The number of processes is a multiple of this."""
        return math.lcm(self.replica, self.expert_replica)

    @property
    def data_parallel(self) -> int:
        """Copies of the model; at least 1, so that other rules can go on."""
        return max(1, self.world // self.replica)


def fits_world(resolved: Resolved, processes: int) -> bool:
    """Whether a layout of that many processes divides those there are; where they are made to fit, always."""
    made_to_fit = resolved.device == "cpu" and "num_gpus" in resolved.computed
    return made_to_fit or resolved.world_size % processes == 0


def sizes(resolved: Resolved) -> Sizes:
    """The job's parallel sizes."""
    p = resolved.job.parallelism
    return Sizes(
        tp=p.tensor_model_parallel_size,
        pp=p.pipeline_model_parallel_size,
        vpp=None if p.virtual_pipeline_model_parallel_size == 1 else p.virtual_pipeline_model_parallel_size,
        cp=p.context_parallel_size,
        ep=p.expert_model_parallel_size,
        etp=p.expert_tensor_parallel_size or p.tensor_model_parallel_size,
        world=resolved.world_size,
    )
