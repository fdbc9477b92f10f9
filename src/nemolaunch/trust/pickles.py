"""Read pickles without running any code they name: unknown classes become plain containers.

A checkpoint's metadata names classes of torch and Megatron. Importing Megatron takes seconds, and an untrusted
pickle could name anything, so nothing is imported: the values passed to a class are enough.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import IO, Any


class Opaque:
    """An instance of a class that was not imported, with its constructor's arguments and its state as attributes."""

    args: tuple[Any, ...]
    items: list[Any]
    state: Any = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Opaque:
        """Keep the arguments here, since pickle does not call `__init__`."""
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
        """Add an item, as pickle does for a subclass of list."""
        self.items.append(value)

    def extend(self, values: Any) -> None:
        """Add items, as pickle does for a subclass of list."""
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
    """An unpickler that takes objects from `known` by name, and makes everything else `Opaque`."""

    def __init__(self, file: IO[bytes], known: Mapping[tuple[str, str], Any] | None = None) -> None:
        super().__init__(file)
        self._known = {**SAFE, **(known or {})}

    def find_class(self, module: str, name: str) -> Any:
        """Return the known object of that name, or a new `Opaque` class."""
        if (module, name) in self._known:
            return self._known[module, name]
        self._known[module, name] = type(name, (Opaque,), {"__module__": module})
        return self._known[module, name]


def load(
    file: IO[bytes],
    known: Mapping[tuple[str, str], Any] | None = None,
    persistent_load: Callable[[Any], Any] | None = None,
) -> Any:
    """Return the object in a pickle. Raises whatever `pickle` raises if it is damaged."""
    unpickler = Unpickler(file, known)
    if persistent_load is not None:
        unpickler.persistent_load = persistent_load  # type: ignore[method-assign]
    return unpickler.load()
