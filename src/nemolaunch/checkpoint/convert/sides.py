"""The formats of Megatron's checkpoints, of which all conversions of models make use alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.checkpoint.bridge import folder as bridge
from nemolaunch.checkpoint.bridge import model
from nemolaunch.checkpoint.megatron.folder import MegatronFolder
from nemolaunch.checkpoint.megatron.sink import WeightsSink
from nemolaunch.checkpoint.megatron_lm import folder as megatron_lm
from nemolaunch.checkpoint.nemo2 import folder as nemo2
from nemolaunch.checkpoint.storage.tensors import TensorInfo
from nemolaunch.errors import NemolaunchError
from nemolaunch.families.bridge_classes import PLAIN
from nemolaunch.families.nemo_config import NemoConfig
from nemolaunch.families.registry import of_nemo

# Output, configuration, folder of the tokenizer, parameters, all fields with those of the family
Begin = Callable[[Path, NemoConfig, Path, Mapping[str, TensorInfo], Mapping[str, Any]], WeightsSink]


@dataclass(frozen=True)
class Side:
    """How a format of Megatron's is read and written.

    Attributes:
        read: checks a folder and reads its description; raises `UsageError` or `NemolaunchError`.
        check: raises `NemolaunchError` if the format cannot represent a model.
        begin: writes everything but the weights, and returns the sink for these.
    """

    read: Callable[[Path], MegatronFolder]
    check: Callable[[NemoConfig], object]
    begin: Begin


def _in_nemo(config: NemoConfig) -> None:
    if config.only_in_bridge:
        raise NemolaunchError(f"NeMo 2 has no {config.model_class}: convert it with --to bridge")


def _plain(config: NemoConfig) -> None:
    model_type = of_nemo(config).model_type
    if model_type not in PLAIN:
        raise NemolaunchError(
            f"there is no conversion of {model_type} to Megatron-LM; there is one of {', '.join(PLAIN)}"
        )
    model.to_bridge(config)


SIDES = {
    "nemo2": Side(nemo2.read_folder, _in_nemo, nemo2.begin),
    "bridge": Side(bridge.read_folder, model.to_bridge, bridge.begin),
    "megatron-lm": Side(megatron_lm.read_folder, _plain, megatron_lm.begin),
}
