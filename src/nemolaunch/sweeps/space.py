"""What a search may draw: ranges of numbers, and lists of values, of the fields of a job."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nemolaunch.errors import UsageError
from nemolaunch.job import spec_of
from nemolaunch.job.fields import FieldSpec
from nemolaunch.sweeps.points import Point, named, of_word, swept_field

_RANGE = re.compile(r"(?P<low>[^:,/]+?)\.\.(?P<high>[^:,/]+)(?::(?P<scale>\w+))?")
RUN = "trial-{}"  # folder of a trial's run


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; drawn by their logarithm if `log`."""

    low: float
    high: float
    log: bool = False

    def at(self, i: int) -> float:
        """Return the lowest for 0, else the highest."""
        return self.low if i == 0 else self.high

    def __str__(self) -> str:
        return f"{self.low:g}..{self.high:g}" + (":log" if self.log else "")


@dataclass(frozen=True)
class Choices:
    """Values of which one is drawn, as they were typed."""

    words: tuple[str, ...]

    def at(self, i: int) -> str:
        """Return the value at a place, the last one beyond."""
        return self.words[min(i, len(self.words) - 1)]

    def __str__(self) -> str:
        return ",".join(self.words)


Space = Mapping[str, Range | Choices]


def parsed_space(words: Iterable[str]) -> dict[str, Range | Choices]:
    """Return what each `FIELD=LOW..HIGH[:log]` or `FIELD=VALUE,VALUE,…` may be, by name of the field.

    Raises:
        UsageError: listing all that is wrong with them.
    """
    space: dict[str, Range | Choices] = {}
    problems = []
    for word in words:
        try:
            name, equals, values = word.partition("=")
            if not equals or not values:
                raise UsageError("write it as FIELD=LOW..HIGH, or FIELD=VALUE,VALUE")
            spec = swept_field(name)
            if spec.name in space:
                raise UsageError(f"{spec.flag} is given twice")
            space[spec.name] = _range(spec, values) or _choices(spec, values)
        except UsageError as error:
            problems.append(f"--sweep {word}: {error}")
    if problems:
        raise UsageError("; ".join(problems))
    if not space:
        raise UsageError(
            "--sampler needs something to search: --sweep FIELD=LOW..HIGH, such as lr=1e-4..1e-2:log"
        )
    return space


def _range(spec: FieldSpec, values: str) -> Range | None:
    found = _RANGE.fullmatch(values)
    if found is None:
        return None
    if found["scale"] not in (None, "log"):
        raise UsageError(f"a range ends in :log or in nothing, not in :{found['scale']}")
    low, high = of_word(spec, found["low"]), of_word(spec, found["high"])
    if not _is_number(low) or not _is_number(high):
        raise UsageError(
            f"{spec.flag} takes no numbers, so it has no range; name its values: {spec.name}=A,B"
        )
    if low >= high:
        raise UsageError(f"{low:g} is not below {high:g}")
    if found["scale"] and low <= 0:
        raise UsageError(f"a logarithmic range begins above 0, not at {low:g}")
    return Range(low, high, bool(found["scale"]))


def _choices(spec: FieldSpec, values: str) -> Choices:
    words = tuple(values.split(","))
    read = [of_word(spec, word) for word in words]
    if any(value in read[:i] for i, value in enumerate(read)):
        raise UsageError("a value is given twice")
    return Choices(words)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def point(name: str, drawn: Mapping[str, Any]) -> Point:
    """Return the run of a trial.

    Args:
        drawn: numbers, and words of choices, by name of the field.
    """
    changes = {}
    for field, value in drawn.items():
        spec = spec_of(field)
        changes[field] = of_word(spec, value) if isinstance(value, str) else spec.checked(value)
    return Point(name, changes)


def ends(space: Space) -> list[Point]:
    """Return outermost points of a space, with each value of its lists, whose plans stand for those of the trials."""
    num = max([2, *(len(v.words) for v in space.values() if isinstance(v, Choices))])
    rows = [point("", {name: values.at(i) for name, values in space.items()}).changes for i in range(num)]
    return named(row for i, row in enumerate(rows) if row not in rows[:i])
