"""What must be true before Megatron-Bridge is imported, where something that it imports is not installed.

Each patch first looks whether it is needed. `apply` is called in each process that imports Megatron, also those that
the checkpoint writer spawns, which import `__main__` again.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import sys
import typing
from collections.abc import Callable
from types import ModuleType

from nemolaunch.system.import_hooks import around_import, importable

PAGED_STASH = "megatron.core.transformer.moe.ops.paged_stash"
RESILIENCY = "nvidia_resiliency_ext"
LORA = "megatron.bridge.peft.lora_layers"


@functools.cache
def apply() -> tuple[str, ...]:
    """Apply the patches that this environment needs. Return their names; a second call changes nothing."""
    os.environ.setdefault("NO_VCS_VERSION", "1")  # Megatron would run git in the working directory
    # otherwise 200 tracebacks of optional packages, at level INFO
    logging.getLogger("megatron.bridge.utils.import_utils").setLevel(logging.ERROR)
    return tuple(name for name, patch in PATCHES.items() if patch())


def override_before_python_312() -> bool:
    """Provide `typing.override`, which megatron/training/models/gpt.py imports: Python has it since 3.12."""
    if hasattr(typing, "override"):
        return False
    import typing_extensions

    typing.override = typing_extensions.override  # type: ignore[attr-defined]
    return True


def stand_in_for_triton() -> bool:
    """Provide the module of Megatron-Core that imports triton unguarded, without its kernels."""
    if importlib.util.find_spec("triton") is not None:
        return False
    module = ModuleType(PAGED_STASH, "Empty: triton is not installed.")
    module.GLOBAL_BLOCK_SIZE = 1024  # type: ignore[attr-defined]
    module.paged_stash_copy_kernel = module.paged_stash_pop_kernel = None  # type: ignore[attr-defined]
    sys.modules[PAGED_STASH] = module
    return True


def stand_in_for_resiliency() -> bool:
    """Provide the one name that Bridge imports from nvidia-resiliency-ext, whose release for it is not on PyPI."""
    if importlib.util.find_spec(RESILIENCY) is not None:
        return False
    package, inprocess = ModuleType(RESILIENCY), ModuleType(f"{RESILIENCY}.inprocess")
    package.__version__ = "0.0.0"  # type: ignore[attr-defined]
    package.inprocess = inprocess  # type: ignore[attr-defined]
    inprocess.CallWrapper = object  # type: ignore[attr-defined]
    sys.modules |= {RESILIENCY: package, inprocess.__name__: inprocess}
    return True


def lora_without_transformer_engine() -> bool:
    """Let Bridge's LoRA layers be imported, which name Transformer Engine's classes in annotations."""
    if importlib.util.find_spec("transformer_engine") is not None:
        return False
    around_import(LORA, _with_names)
    return True


def _with_names(execute: Callable[[ModuleType], None], module: ModuleType) -> None:
    """Provide Transformer Engine's names while Bridge's LoRA layers are imported, and no longer.

    Everything else must see that there is no Transformer Engine.
    """
    # which look for Transformer Engine themselves
    import megatron.bridge.peft.adapter_wrapper
    import megatron.bridge.peft.lora_merge
    import megatron.core.transformer.moe.moe_utils  # noqa: F401

    with importable(_transformer_engine()):
        execute(module)


def _transformer_engine() -> dict[str, ModuleType]:
    package, pytorch = ModuleType("transformer_engine"), ModuleType("transformer_engine.pytorch")
    for part in ("Linear", "LayerNormLinear"):
        setattr(pytorch, part, type(part, (), {}))
    pytorch.ops = _AnyClass()  # type: ignore[attr-defined]
    package.pytorch = pytorch  # type: ignore[attr-defined]
    return {package.__name__: package, pytorch.__name__: pytorch}


class _AnyClass:
    """A namespace that has every class."""

    def __getattr__(self, name: str) -> type:
        return type(name, (), {})


PATCHES: dict[str, Callable[[], bool]] = {
    "typing-override": override_before_python_312,
    "triton": stand_in_for_triton,
    "resiliency": stand_in_for_resiliency,
    "lora": lora_without_transformer_engine,
}
