"""Frozen dataclasses to plain values and back, for facts that are sent from one machine to another."""

from __future__ import annotations

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any


def to_plain(value: Any) -> Any:
    """Return a value in a form that JSON can hold; sets become sorted lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(to_plain(item) for item in value)
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def fits(kind: Any, value: Any) -> bool:
    """Return whether a value has an annotated type; of a class that is not a dataclass, everything fits."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(fits(one, value) for one in arguments)
    if kind in (None, types.NoneType):
        return value is None
    if kind in (int, float, str, bool):
        return type(value) is kind or (kind is float and type(value) is int)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return isinstance(value, kind) and misfit(value) is None
    if origin is tuple and isinstance(value, (tuple, list)):
        if arguments[-1:] == (Ellipsis,):
            return all(fits(arguments[0], item) for item in value)
        return len(arguments) == len(value) and all(map(fits, arguments, value))
    if origin is dict and isinstance(value, dict):
        return all(fits(arguments[0], key) and fits(arguments[1], item) for key, item in value.items())
    if origin in (list, set, frozenset) and isinstance(value, origin):
        return all(fits(arguments[0], item) for item in value)
    return origin not in (tuple, dict, list, set, frozenset)


def misfit(value: Any) -> str | None:
    """Return the name of a field of a dataclass whose value is not of its type; None if there is none."""
    hints = typing.get_type_hints(type(value))
    return next(
        (f.name for f in dataclasses.fields(value) if not fits(hints[f.name], getattr(value, f.name))), None
    )


def from_plain(kind: Any, value: Any) -> Any:
    """Return the value of an annotated type from the plain values that `to_plain` made of it."""
    if value is None or kind is Any:
        return value
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        (one,) = (a for a in arguments if a is not type(None))
        return from_plain(one, value)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        return kind(**{name: from_plain(hints[name], item) for name, item in value.items()})
    if origin is tuple and arguments[-1:] != (Ellipsis,):
        return tuple(from_plain(a, item) for a, item in zip(arguments, value, strict=True))
    if origin in (tuple, frozenset, list):
        return origin(from_plain(arguments[0], item) for item in value)
    if origin is dict:
        return {key: from_plain(arguments[1], item) for key, item in value.items()}
    return Path(value) if kind is Path else value
