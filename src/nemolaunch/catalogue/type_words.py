"""Python's type annotations in the words of the tables of fields; see `recipe_fields`."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nemolaunch.catalogue.recipe_fields import fields_of

PLAIN = {bool: "bool", int: "int", float: "float", str: "str", type(None): "null", os.PathLike: "str"}


def add_dataclass(table: dict[str, Any], cls: type) -> None:
    """Add a dataclass and those it extends, each with its own fields only."""
    if cls.__name__ in table:
        return
    parents = [base for base in cls.__bases__ if dataclasses.is_dataclass(base)]
    for parent in parents:
        add_dataclass(table, parent)
    hints = evaluated(inspect.get_annotations(cls), vars(sys.modules[cls.__module__]))
    own = [field for field in dataclasses.fields(cls) if field.init and field.name in hints]
    inherited: dict[str, str] = {}
    for parent in reversed(parents):
        inherited |= fields_of(parent.__name__, table)
    fields = {field.name: type_word(hints[field.name], field.default) for field in own}
    table[cls.__name__] = {
        "extends": [parent.__name__ for parent in parents],
        "fields": {name: word for name, word in sorted(fields.items()) if inherited.get(name) != word},
    }


def evaluated(annotations: Mapping[str, Any], names: dict[str, Any]) -> dict[str, Any]:
    """Return annotations with text evaluated; those of types imported for type checkers only are `object`."""
    found = {}
    for name, hint in annotations.items():
        if isinstance(hint, str):
            try:
                hint = eval(hint, names)
            except (NameError, AttributeError, TypeError):
                hint = object
        found[name] = hint
    return found


def type_word(hint: Any, default: Any) -> str:
    """Return a type as in the table: alternatives separated by `|`, such as `int|null` or `list[str]`."""
    if hint is inspect.Parameter.empty:
        hint = type(default) if type(default) in PLAIN and default is not None else object
    words = list(dict.fromkeys(_alternatives(hint)))
    if default is None and "null" not in words:
        words.append("null")
    known = [word for word in words if word != "object"]
    if set(known) <= {"null"}:
        return "object"
    return "|".join(sorted(known, key=lambda word: word == "null"))


def _alternatives(hint: Any) -> Iterator[str]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, typing.ForwardRef) or hint is Any:
        yield "object"
    elif origin in (typing.Union, types.UnionType):
        for argument in arguments:
            yield from _alternatives(argument)
    elif origin is typing.Literal:
        yield from (json.dumps(value) for value in arguments)
    elif hint in (list, tuple) or origin in (list, tuple, Sequence):
        yield _sequence("tuple" if tuple in (hint, origin) else "list", arguments)
    elif hint in PLAIN:
        yield PLAIN[hint]
    elif isinstance(hint, type) and issubclass(hint, os.PathLike):
        yield "str"
    elif f"{getattr(hint, '__module__', '')}.{getattr(hint, '__name__', '')}" == "torch.dtype":
        yield "dtype"
    else:
        yield "object"


def _sequence(kind: str, arguments: Sequence[Any]) -> str:
    items = list(dict.fromkeys(word for a in arguments if a is not ... for word in _alternatives(a)))
    if items == ["object"]:
        return "object"
    return f"{kind}[{' '.join(items)}]" if items else kind
