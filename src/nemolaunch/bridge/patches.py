"""What must be true before Megatron-Bridge is imported, where something that it imports is not installed.

Each patch first looks whether it is needed. `apply` is called in each process that imports Megatron, also those that
the checkpoint writer spawns, which import `__main__` again.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import os
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from nemolaunch.system.import_hooks import after_import, around_import, importable

RESILIENCY = "nvidia_resiliency_ext"
# Modules that import triton or Transformer Engine unguarded, in some releases -> what they import that looks for
# these packages itself, and must not find a stand-in
NEED_TRITON: dict[str, tuple[str, ...]] = {
    "megatron.core.inference.contexts.attention_context.triton.tensor_ops": (),
    "megatron.core.transformer.moe.ops.paged_stash": (),
    "megatron.core.transformer.moe.paged_stash": (
        "megatron.core.full_cuda_graph",
        "megatron.core.optimizer.distrib_optimizer",
    ),
}
NEED_TRANSFORMER_ENGINE: dict[str, tuple[str, ...]] = {
    "megatron.bridge.peft.lora_layers": (
        "megatron.bridge.peft.adapter_wrapper",
        "megatron.bridge.peft.lora_merge",
        "megatron.core.transformer.moe.moe_utils",
    ),
    "megatron.bridge.peft.lora": ("megatron.bridge.peft.lora_layers", "megatron.bridge.peft.utils"),
}


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
    """Let the module of Megatron-Core be imported that names triton in its kernels, which are not used."""
    if importlib.util.find_spec("triton") is not None:
        return False
    for name, first in NEED_TRITON.items():
        around_import(name, functools.partial(_seeing, _triton, first))
    return True


def _triton() -> dict[str, ModuleType]:
    package, language = ModuleType("triton"), _AnyClass("triton.language")
    package.jit = lambda function: function  # type: ignore[attr-defined]
    package.language = language  # type: ignore[attr-defined]
    return {package.__name__: package, language.__name__: language}


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
    for name, first in NEED_TRANSFORMER_ENGINE.items():
        around_import(name, functools.partial(_seeing, _transformer_engine, first))
    return True


def _transformer_engine() -> dict[str, ModuleType]:
    package, pytorch = ModuleType("transformer_engine"), ModuleType("transformer_engine.pytorch")
    for part in ("Linear", "LayerNormLinear"):
        setattr(pytorch, part, type(part, (), {}))
    pytorch.ops = _AnyClass("transformer_engine.pytorch.ops")  # type: ignore[attr-defined]
    package.pytorch = pytorch  # type: ignore[attr-defined]
    return {package.__name__: package, pytorch.__name__: pytorch}


class _AnyClass(ModuleType):
    """A module that has every class."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def _seeing(
    stand_ins: Callable[[], dict[str, ModuleType]],
    first: tuple[str, ...],
    execute: Callable[[ModuleType], None],
    module: ModuleType,
) -> None:
    """Provide modules while one is imported, and no longer: everything else must see that they are not installed.

    Args:
        first: what is imported before, as far as this release has it.
    """
    names = stand_ins()
    source = Path(str(module.__file__)).read_text(encoding="utf-8")
    if not any(f"import {name}" in source for name in names):
        execute(module)
        return
    for name in first:
        if importlib.util.find_spec(name) is not None:
            importlib.import_module(name)
    with importable(names):
        execute(module)


def queries_without_norm() -> bool:
    """Build models of multi-latent attention without `q_lora_rank`, such as DeepSeek-V2-Lite, as they are.

    With `qk_layernorm`, Megatron-Core 0.19 puts a norm with weights of its own before the projection of their queries.
    Neither the original models nor NeMo's Megatron-Core have it (NVIDIA-NeMo/Megatron-Bridge#5261).
    """
    after_import("megatron.core.transformer.mla_qk_norm_config", _plain_queries)
    return True


def _plain_queries(module: ModuleType) -> None:
    resolve = module.QKNormConfigResolver.resolve

    def resolved(self: typing.Any) -> typing.Any:
        found = resolve(self)
        if not self.has_q_lora:
            found["linear_q_proj"] = self.submodules.linear_q_proj or self.linear_impl
        return found

    module.QKNormConfigResolver.resolve = resolved


PATCHES: dict[str, Callable[[], bool]] = {
    "typing-override": override_before_python_312,
    "triton": stand_in_for_triton,
    "resiliency": stand_in_for_resiliency,
    "lora": lora_without_transformer_engine,
    "queries": queries_without_norm,
}
