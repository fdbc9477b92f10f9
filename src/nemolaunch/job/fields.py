"""One field of a job: its command-line form and the values it accepts."""

from __future__ import annotations

import os
import typing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from nemolaunch.errors import UsageError
from nemolaunch.system.quantities import number, scaled

T = TypeVar("T")


def flag(
    default: T,
    help: str,
    *,
    short: str | None = None,
    aliases: tuple[str, ...] = (),
    choices: tuple[str, ...] | None = None,
    metavar: str | None = None,
    scaled: bool = False,
    repeats: bool = False,
) -> T:
    """Declare a field of a job with its command-line form.

    `aliases` are alternative long names; `scaled` counts may be written like 300M or 1.4T; a flag that `repeats` adds
    its words to those given before.
    """
    metadata = {
        "help": help, "short": short, "aliases": aliases, "choices": choices, "metavar": metavar, "scaled": scaled,
        "repeats": repeats or "=" in (metavar or ""),
    }  # fmt: skip
    return typing.cast(T, field(default=default, metadata=metadata))


@dataclass(frozen=True, kw_only=True)
class FieldSpec:
    """One field of the job as flags and YAML see it.

    Attributes:
        kind: `int`, `float`, `str` or `bool`; the type of each element if `many`.
        optional: whether the field may be `None` ("not given").
        many: whether the field is a tuple, given as several words on the command line.
    """

    part: str
    name: str
    kind: type
    optional: bool
    many: bool
    default: Any
    help: str
    short: str | None
    aliases: tuple[str, ...]
    choices: tuple[str, ...] | None
    metavar: str | None
    scaled: bool
    repeats: bool

    @property
    def flag(self) -> str:
        """The long flag, such as `--num-nodes`."""
        return "--" + self.name.replace("_", "-")

    def checked(self, value: Any) -> Any:
        """Return the value in the field's own type; raise UsageError if it does not have that type."""
        if value is None and self.optional:
            return None
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        if self.many:
            values = [value] if isinstance(value, (str, os.PathLike)) else value
            if not isinstance(values, (list, tuple)):
                raise UsageError(f"{self.flag} takes a list, not {value!r}")
            return tuple(self._text(str(v)) for v in values)
        if self.scaled and isinstance(value, str):
            value = scaled(value)
        good: Any = None
        if self.kind is bool:
            good = value if isinstance(value, bool) else None
        elif isinstance(value, bool):
            good = None
        elif self.kind is int:
            good = value if isinstance(value, int) else None
        elif self.kind is float:
            good = number(value)
        elif isinstance(value, (str, int, float)):
            good = self._text(str(value))
        if good is None:
            raise UsageError(f"{self.flag} takes {_KINDS[self.kind]}, not {value!r}")
        if self.choices and good not in self.choices:
            raise UsageError(f"{self.flag} takes one of {', '.join(self.choices)}, not {value!r}")
        return good

    def _text(self, value: str) -> str:
        if "\0" in value:
            raise UsageError(f"{self.flag} {value!r} contains a NUL character, which names and paths cannot")
        return value


_KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
