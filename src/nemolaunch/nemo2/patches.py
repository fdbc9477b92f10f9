"""Patches that let NeMo train with Megatron-Core releases it was not written for.

`apply()` is called in each process that runs NeMo, before NeMo is imported. A patch first looks at the code it would
change, and does nothing if that code is as NeMo expects it. `nemolaunch.catalogue.patches` lists, for the plan, which
patches apply to which releases, and the public report that each one answers.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from nemolaunch.ranks.megatron_import import skip_inference_allocator
from nemolaunch.system.import_hooks import after_import

GEMMA3 = "nemo.collections.llm.gpt.model.gemma3"
TENSORSTORE = "megatron.core.dist_checkpointing.strategies.tensorstore"


@functools.cache
def apply() -> tuple[str, ...]:
    """Apply the patches that this environment needs. Return their names; a second call changes nothing.

    Imports Megatron, a few seconds, but not NeMo.
    """
    skip_inference_allocator()
    return tuple(name for name, patch in PATCHES.items() if patch())


def translate_optimizer_arguments() -> bool:
    """Let `get_megatron_optimizer` accept the conditions that NeMo passes, which Megatron-Core 0.16 replaced.

    Without conditions, both exempt biases and one-dimensional parameters from weight decay.
    """
    from megatron.core import optimizer

    build = optimizer.get_megatron_optimizer
    if "no_weight_decay_cond" in inspect.signature(build).parameters:
        return False

    @functools.wraps(build)
    def get_megatron_optimizer(
        config: Any,
        model_chunks: Any,
        no_weight_decay_cond: Callable[[str, Any], bool] | None = None,
        scale_lr_cond: Callable[[str, Any], bool] | None = None,
        lr_mult: float = 1.0,
        **rest: Any,
    ) -> Any:
        if no_weight_decay_cond or scale_lr_cond:
            rest["config_overrides"] = overrides_for(config, no_weight_decay_cond, scale_lr_cond, lr_mult)
        return build(config, model_chunks, **rest)

    get_megatron_optimizer.__signature__ = inspect.signature(  # type: ignore[attr-defined]
        get_megatron_optimizer, follow_wrapped=False
    )
    optimizer.get_megatron_optimizer = get_megatron_optimizer
    return True


def overrides_for(
    config: Any,
    no_weight_decay_cond: Callable[[str, Any], bool] | None,
    scale_lr_cond: Callable[[str, Any], bool] | None,
    lr_mult: float,
) -> dict[Any, Any]:
    """Return Megatron-Core 0.16's overrides with the meaning of 0.15's conditions."""
    from megatron.core.optimizer import ParamKey, ParamWithNamePredicate, get_standard_config_overrides

    def key(name: str, condition: Callable[[str, Any], bool]) -> Any:
        predicate = ParamWithNamePredicate(name=name, fn=lambda param, name: condition(name, param))
        return ParamKey(with_name_predicate=predicate)

    overrides = dict(get_standard_config_overrides(config))
    if no_weight_decay_cond:  # which replaces the standard condition
        overrides = {key: value for key, value in overrides.items() if "wd_mult" not in value}
        overrides[key("no_weight_decay_cond", no_weight_decay_cond)] = {"wd_mult": 0.0}
    if scale_lr_cond:
        overrides[key("scale_lr_cond", scale_lr_cond)] = {"lr_mult": lr_mult}
    return overrides


def stand_in_for_tensorstore() -> bool:
    """Provide the module of the `zarr` format, which Megatron-Core 0.16 dropped.

    NeMo imports it together with everything else it needs for checkpoints, and reports Megatron as not installed if
    it is missing. NeMo 2 checkpoints are in the format `torch_dist` and never use it.
    """
    if TENSORSTORE in sys.modules or importlib.util.find_spec(TENSORSTORE):
        return False
    module = ModuleType(TENSORSTORE, "Empty: this Megatron-Core has no tensorstore strategy.")
    sys.modules[TENSORSTORE] = module
    return True


def accept_new_arguments_in_gemma3() -> bool:
    """Let NeMo's Gemma 3 accept arguments that Megatron-Core passes since 0.15, all of them `None` in training."""
    from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding
    from megatron.core.transformer.attention import SelfAttention

    bases = {"Gemma3SelfAttention": SelfAttention, "Gemma3RotaryEmbedding": RotaryEmbedding}
    newer = {"rotary_pos_cos_sin", "cp_group"}
    if not any(newer & inspect.signature(base.forward).parameters.keys() for base in bases.values()):
        return False

    def complete(module: ModuleType) -> None:
        for name, base in bases.items():
            _ignore_missing_arguments(getattr(module, name), base)

    after_import(GEMMA3, complete)
    return True


def _ignore_missing_arguments(cls: type[Any], base: type[Any]) -> None:
    """Make `cls.forward` drop the arguments that only its base class has, as long as they are `None`."""
    forward = cls.forward
    known = inspect.signature(forward).parameters.keys()
    unknown = inspect.signature(base.forward).parameters.keys() - known
    if not unknown:
        return

    @functools.wraps(forward)
    def tolerant(self: Any, *args: Any, **kwargs: Any) -> Any:
        for name in unknown & kwargs.keys():
            if kwargs.pop(name) is not None:
                raise TypeError(f"{cls.__name__} of this NeMo does not support {name}")
        return forward(self, *args, **kwargs)

    cls.forward = tolerant


PATCHES: dict[str, Callable[[], bool]] = {
    "optimizer-arguments": translate_optimizer_arguments,
    "tensorstore": stand_in_for_tensorstore,
    "gemma3-arguments": accept_new_arguments_in_gemma3,
}
