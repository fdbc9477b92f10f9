"""Run code when a module is imported."""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

Runner = Callable[[Callable[[ModuleType], None], ModuleType], None]


def after_import(name: str, action: Callable[[ModuleType], None]) -> None:
    """Call `action` with a module once it has been imported; at once if it already is."""

    def run(execute: Callable[[ModuleType], None], module: ModuleType) -> None:
        execute(module)
        action(module)

    if name in sys.modules:
        action(sys.modules[name])
    else:
        around_import(name, run)


def around_import(name: str, run: Runner) -> None:
    """Have `run` execute a module that has not been imported yet. Its arguments: what executes it, and the module."""
    sys.meta_path.insert(0, _Finder(name, run))


def during_import(name: str, modules: dict[str, ModuleType]) -> None:
    """Have modules be importable while another one, which has not been imported yet, is executed, and no longer."""

    def run(execute: Callable[[ModuleType], None], module: ModuleType) -> None:
        with importable(modules):
            execute(module)

    around_import(name, run)


@contextlib.contextmanager
def importable(modules: dict[str, ModuleType]) -> Iterator[None]:
    """Have modules be importable for a while: everything else must see that they are not installed."""
    sys.modules.update(modules)
    try:
        yield
    finally:
        for each in modules:
            del sys.modules[each]


class _Finder(importlib.abc.MetaPathFinder):
    """Finds one module as Python would, with a loader that leaves its execution to `run`."""

    def __init__(self, name: str, run: Runner) -> None:
        self.name, self.run = name, run

    def find_spec(
        self, name: str, path: Any = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the ordinary spec of the module with that loader; None for all others."""
        if name != self.name:
            return None
        sys.meta_path.remove(self)  # other hooks of the same module, and the ordinary finders, come next
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module
        spec.loader.exec_module = partial(self.run, execute)  # type: ignore[method-assign]
        return spec
