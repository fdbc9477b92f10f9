"""Read pickles without running what they name: classes that are not known become plain containers.

A checkpoint's metadata names classes of torch and Megatron. Importing Megatron takes seconds, and a pickle
from elsewhere could name anything, so nothing is imported: the values a class was given are enough.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import IO, Any


class Opaque:
    """An object whose class was not imported: its constructor's arguments, and its state as attributes."""

    args: tuple[Any, ...]
    items: list[Any]
    state: Any = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Opaque:  # pickle does not call __init__
        self = object.__new__(cls)
        self.args, self.items = args, []
        return self

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)
        else:
            self.state = state

    def append(self, value: Any) -> None:
        self.items.append(value)

    def extend(self, values: Any) -> None:
        self.items.extend(values)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))


SAFE: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): tuple,
    ("builtins", "set"): set,
    ("builtins", "list"): list,
    ("builtins", "dict"): dict,
    ("builtins", "tuple"): tuple,
}


class Unpickler(pickle.Unpickler):
    """`known` gives the objects that stand for some names; the rest is `Opaque`."""

    def __init__(self, file: IO[bytes], known: Mapping[tuple[str, str], Any] | None = None) -> None:
        super().__init__(file)
        self._known = {**SAFE, **(known or {})}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._known:
            return self._known[module, name]
        self._known[module, name] = type(name, (Opaque,), {"__module__": module})
        return self._known[module, name]


def load(
    file: IO[bytes],
    known: Mapping[tuple[str, str], Any] | None = None,
    persistent_load: Callable[[Any], Any] | None = None,
) -> Any:
    """The object in a pickle. Raises what `pickle` raises for a damaged one."""
    unpickler = Unpickler(file, known)
    if persistent_load is not None:
        unpickler.persistent_load = persistent_load  # type: ignore[method-assign]
    return unpickler.load()
