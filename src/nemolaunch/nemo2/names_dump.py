"""Write `trust/context_names.json`: what the contexts of NeMo's own checkpoints can name.

Run `python -m nemolaunch.nemo2.names_dump` where NeMo is installed, without a GPU. Listed are classes under the module
that defines them, so that a name that a module only imports, such as `subprocess.Popen`, is not among them.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import json
import sys
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from nemolaunch.system.atomic_files import write_text
from nemolaunch.trust.names import TABLE

ROOTS = (
    "nemo.collections.llm.", "nemo.collections.common.tokenizers.", "nemo.lightning.", "nemo.utils.", "megatron.core.",
    "lightning.pytorch.",
)  # fmt: skip
# Of other packages, or functions
OTHERS = {
    "builtins": ["dict", "list", "set", "tuple"],
    "datetime": ["timedelta"],
    "fiddle._src.config": ["BuildableTraverserMetadata", "Config", "Partial"],
    "nemo.lightning.io.artifact.file": ["DirArtifact", "DirOrStringArtifact", "FileArtifact", "PathArtifact"],
    "nemo.lightning.io.artifact.hf_auto": ["from_pretrained"],
    "pathlib": ["Path", "PosixPath"],
    "torch.nn.functional": ["gelu", "relu", "silu"],
    "transformers.generation.configuration_utils": ["GenerationConfig"],
}


def names_table() -> dict[str, Any]:
    """Return, by module, the names that are allowed."""
    from nemolaunch import cpu

    cpu.install()
    import torch
    from nemo.collections import llm  # noqa: F401, which imports all models and recipes

    found: dict[str, set[str]] = {module: set(names) for module, names in OTHERS.items()}
    found["torch"] = {name for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
    for module in [one for name, one in sys.modules.items() if name.startswith(ROOTS)]:
        for name, value in vars(module).items():
            for named in _names(name, value, module.__name__):
                found.setdefault(named[0], set()).add(named[1])
    versions = {name: version(name) for name in ("nemo_toolkit", "megatron-core", "lightning")}
    return {"versions": versions, "names": {name: sorted(found[name]) for name in sorted(found)}}


def _names(name: str, value: Any, module: str) -> Iterator[tuple[str, str]]:
    """Yield a class that can be part of a context, an enumeration's members, and functions that are defaults."""
    if not issubclass(type(value), type) or value.__module__ != module or value.__qualname__ != name:
        return
    if issubclass(value, enum.Enum):
        yield from ((module, f"{name}.{member}") for member in value.__members__)
    if dataclasses.is_dataclass(value) or issubclass(value, _parts()):
        yield module, name
    for field in dataclasses.fields(value) if dataclasses.is_dataclass(value) else ():
        function = field.default
        if inspect.isfunction(function) and function.__module__.startswith(ROOTS):
            yield function.__module__, function.__qualname__


def _parts() -> tuple[type, ...]:
    from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
    from lightning.pytorch.loggers import Logger
    from lightning.pytorch.plugins import Precision
    from lightning.pytorch.strategies import Strategy
    from nemo.collections.common.tokenizers import TokenizerSpec
    from nemo.lightning.io.pl import TrainerContext
    from nemo.lightning.pytorch.optim.base import LRSchedulerModule, OptimizerModule

    return (
        Callback, LightningDataModule, LightningModule, Logger, LRSchedulerModule, OptimizerModule, Precision, Strategy,
        TokenizerSpec, Trainer, TrainerContext,
    )  # fmt: skip


if __name__ == "__main__":
    write_text(TABLE, json.dumps(names_table(), indent=0) + "\n")
