"""Write configurations as fiddle's JSON, the format of NeMo's `io.json`, without fiddle or the classes named.

Format: fiddle's serialization, version 0.0.1. All objects are in one table and refer to each other by key; a
configuration names a class or function and its arguments. NeMo finds parts of a checkpoint's context by the `paths`
of the objects.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FIDDLE = "fiddle._src.config"


@dataclass(frozen=True)
class Call:
    """A class or function to be called with arguments."""

    module: str
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Symbol:
    """A reference to a class, function or constant."""

    module: str
    name: str


def dumps(root: Call) -> str:
    """Return a configuration as JSON. Arguments can be JSON values, dicts, lists, `Symbol` and `Call`."""
    writer = _Writer()
    key = writer.node(root, "<root>")
    counts = dict.fromkeys(writer.objects, 1)
    return json.dumps({"root": key, "objects": writer.objects, "refcounts": counts, "version": "0.0.1"})


class _Writer:
    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self._counts: dict[str, int] = {}

    def node(self, value: Any, path: str) -> dict[str, Any]:
        """Return the JSON that represents a value, after adding objects to the table."""
        if isinstance(value, Call):
            return self._call(value, path)
        if isinstance(value, Symbol):
            return {**_pyref(value.module, value.name), "paths": [path]}
        if isinstance(value, (list, tuple)):
            items = [[f"Index(index={n})", self.node(item, f"{path}[{n}]")] for n, item in enumerate(value)]
            return self._add(
                "list", {"type": _pyref("builtins", "list"), "items": items, "metadata": None}, path
            )
        if isinstance(value, dict):
            items = [[f"Key(key={k!r})", self.node(item, f"{path}[{k!r}]")] for k, item in value.items()]
            names = self._tuple(list(value))
            return self._add(
                "dict", {"type": _pyref("builtins", "dict"), "items": items, "metadata": names}, path
            )
        return {"type": "leaf", "value": value, "paths": [path]}

    def _call(self, call: Call, path: str) -> dict[str, Any]:
        items = [
            [f"Attr(name={name!r})", self.node(v, f"{path}.{name}")] for name, v in call.arguments.items()
        ]
        kind = _pyref(FIDDLE, "BuildableTraverserMetadata")
        about = {
            "fn_or_cls": _pyref(call.module, call.name),
            "argument_names": self._tuple(list(call.arguments)),
            "argument_tags": self._empty_dict(),
            "argument_history": self._empty_dict(),
        }
        metadata = self._add(
            "buildable_traverser_metadata",
            {
                "type": kind,
                "items": [[f"Attr(name={name!r})", value] for name, value in about.items()],
                "metadata": kind,
            },
        )
        snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", call.name).lower()
        return self._add(
            snake, {"type": _pyref(FIDDLE, "Config"), "items": items, "metadata": metadata}, path
        )

    def _tuple(self, names: list[str]) -> dict[str, Any]:
        if not names:
            return {"type": _pyref("builtins", "tuple"), "items": [], "metadata": None}
        items = [[f"Index(index={n})", name] for n, name in enumerate(names)]
        return self._add("tuple", {"type": _pyref("builtins", "tuple"), "items": items, "metadata": None})

    def _empty_dict(self) -> dict[str, Any]:
        return self._add(
            "dict", {"type": _pyref("builtins", "dict"), "items": [], "metadata": self._tuple([])}
        )

    def _add(self, kind: str, entry: dict[str, Any], path: str | None = None) -> dict[str, Any]:
        self._counts[kind] = self._counts.get(kind, 0) + 1
        key = f"{kind}_{self._counts[kind]}"
        self.objects[key] = {**entry, "paths": [path]} if path else entry
        return {"type": "ref", "key": key}


def _pyref(module: str, name: str) -> dict[str, Any]:
    return {"type": "pyref", "module": module, "name": name}
