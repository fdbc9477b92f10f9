"""The model of a checkpoint that is moved: what the target must be able to describe, and whether it does."""

from __future__ import annotations

from collections.abc import Mapping

from nemolaunch.checkpoint.hf.config_diff import differences
from nemolaunch.checkpoint.megatron.description import to_bridge
from nemolaunch.checkpoint.megatron.names import EMBEDDING
from nemolaunch.checkpoint.megatron_lm import folder as megatron_lm
from nemolaunch.checkpoint.storage.check import Check
from nemolaunch.checkpoint.storage.tensors import TensorInfo
from nemolaunch.errors import NemolaunchError
from nemolaunch.families.nemo_config import NemoConfig

NEMO2, BRIDGE, MEGATRON_LM = "nemo2", "bridge", "megatron-lm"
TITLES = {NEMO2: "NeMo 2", BRIDGE: "Megatron-Bridge", MEGATRON_LM: "Megatron-LM"}


def rows_of(tensors: Mapping[str, TensorInfo], wrapper: str = "") -> int:
    """Return how many rows the embedding has, which may include padding.

    Raises `NemolaunchError` if there is none.
    """
    info = tensors.get(wrapper + EMBEDDING)
    if info is None:
        raise NemolaunchError(f"it has no {EMBEDDING}, so it is not a complete model")
    return info.shape[0]


def with_rows(config: NemoConfig, rows: int) -> NemoConfig:
    """Return the configuration with as many rows of the embedding as are saved.

    NeMo's Mamba pads the tokenizer's size, whatever its configuration says.
    """
    if config.model_class == "MambaModel":
        return config
    return NemoConfig(config.model_class, config.config_class, {**config.fields, "vocab_size": rows})


def check_target(config: NemoConfig, to: str) -> None:
    """Raise `NemolaunchError` if a format cannot describe the model."""
    to_bridge(config)  # for NeMo 2 as well: its fields are compared after the way back
    if to == MEGATRON_LM:
        megatron_lm.check(config)


def config_check(before: NemoConfig, after: NemoConfig) -> Check:
    """Compare what two descriptions say that the model computes, in Bridge's fields."""
    old, new = to_bridge(before), to_bridge(after)
    nothing = dict.fromkeys([*old, *new])
    return Check("config", *differences({**nothing, **old}, {**nothing, **new}))
