"""Megatron-Bridge's checkpoint folders: `iter_N/`, a distributed checkpoint with `run_config.yaml` and the tokenizer.

They lie in a folder with the record of the newest complete one, which stands for that one.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.checkpoint.bridge import model
from nemolaunch.checkpoint.bridge.state import TRAIN_STATE
from nemolaunch.checkpoint.hf import folder as hf_folder
from nemolaunch.checkpoint.hf import output as hf_output
from nemolaunch.checkpoint.megatron.iteration import IterationFolder
from nemolaunch.checkpoint.megatron.names import EMBEDDING
from nemolaunch.checkpoint.megatron.sink import WeightsSink, save
from nemolaunch.checkpoint.storage.dcp import METADATA
from nemolaunch.checkpoint.storage.tensors import TensorInfo
from nemolaunch.errors import UsageError
from nemolaunch.facts import bridge_run_config
from nemolaunch.facts.bridge_model import model_in
from nemolaunch.facts.bridge_run_config import RunConfig
from nemolaunch.families.nemo_config import NemoConfig
from nemolaunch.run.folder import (
    BRIDGE_CONFIG,
    BRIDGE_TOKENIZER,
    BRIDGE_TRACKER,
    is_bridge,
    newest_of_bridge,
    unfinished,
)
from nemolaunch.trust.checkpoint import check_checkpoint

FIRST = "iter_0000000"
# What Bridge saves of an untrained model
COMMON = {
    "checkpoint_version": 3.0,
    "iteration": 0,
    "content_metadata": {"singleton_local_shards": False, "chained_optim_avoid_prefix": True},
}


@dataclass(frozen=True)
class BridgeFolder(IterationFolder):
    """A checked checkpoint folder, with the configuration in it."""

    run_config: RunConfig

    @property
    def named_tokenizer(self) -> str | None:
        """The recorded one."""
        return self.run_config.tokenizer

    def check_names(self) -> None:
        """Raise `NemolaunchError` if a pickle in it names what Bridge's own checkpoints do not."""
        check_checkpoint(self.path)


def find(path: Path) -> Path:
    """Return a checkpoint: the folder itself, or the newest complete one in it.

    Raises `UsageError` if it was not saved to the end, or there is none.
    """
    found = path if (path / METADATA).is_file() else newest_of_bridge(path)
    if found is None:
        raise UsageError(f"{path} has no complete checkpoint of Megatron-Bridge")
    if (found.parent / BRIDGE_TRACKER).is_file() and is_bridge(found) and unfinished(found):
        raise UsageError(f"{found}: it is incomplete: its save was interrupted")
    return found


def read_folder(path: Path, describe: Callable[[Path, RunConfig], NemoConfig] = model_in) -> BridgeFolder:
    """Check a checkpoint folder, or the folder of several for the newest, and read the description of the model.

    `describe` returns the model in NeMo's terms; by default, it must be one that converts to Hugging Face.

    Raises:
        UsageError: it is not a complete checkpoint of a whole model.
        NemolaunchError: its configuration is damaged, or of a model that nemolaunch does not convert.
    """
    path = find(path)
    if (path / "modelopt_state").exists():
        raise UsageError(
            f"{path} was quantised by ModelOpt; export it with Bridge's AutoBridge.export_ckpt instead"
        )
    found = bridge_run_config.read(path)
    if found.section("peft"):
        raise UsageError(
            f"{path} is a LoRA adapter; merge it into its base model first, with Bridge's merge_lora.py"
        )
    return BridgeFolder(path, describe(path, found), found)


def begin(
    output: Path,
    config: NemoConfig,
    tokenizer: Path,
    parameters: Mapping[str, TensorInfo],
    fields: Mapping[str, Any],
    describe: Callable[[NemoConfig], dict[str, Any]] = model.to_bridge,
) -> WeightsSink:
    """Write everything but the weights of a new folder with one checkpoint, and return the sink of its weights.

    Args:
        tokenizer: the folder with the tokenizer and the generation config.
        fields: those of `config`, with what the model's family adds.
        describe: returns the `model` section of its configuration.
    """
    checkpoint = output / FIRST
    sink = WeightsSink(checkpoint, parameters, fields, COMMON)
    hf_folder.copy_tokenizer(tokenizer, checkpoint / BRIDGE_TOKENIZER)
    copy_generation(tokenizer / hf_output.GENERATION, checkpoint)
    # without optimizer and random state: Bridge reads that here
    without = {
        "_target_": "megatron.bridge.training.config.CheckpointConfig",
        "save_optim": False,
        "save_rng": False,
        "fully_parallel_save": True,
    }
    described = describe(config) | {"vocab_size": parameters[EMBEDDING].shape[0]}
    write_run_config(checkpoint, described, {"checkpoint": without})
    save(train_state(0, 0), checkpoint / TRAIN_STATE)
    record_newest(checkpoint, 0)
    return sink


def copy_generation(path: Path, checkpoint: Path) -> None:
    """Copy a generation config into a checkpoint, if there is one."""
    if path.is_file():
        shutil.copyfile(path, checkpoint / BRIDGE_TOKENIZER / hf_output.GENERATION)


def record_newest(checkpoint: Path, step: int) -> None:
    """Record a complete checkpoint as the newest in its folder, as Bridge does last."""
    shutil.copyfile(checkpoint / TRAIN_STATE, checkpoint.parent / f"latest_{TRAIN_STATE}")
    (checkpoint.parent / BRIDGE_TRACKER).write_text(str(step), encoding="utf-8")


def write_run_config(
    folder: Path, described: Mapping[str, Any], sections: Mapping[str, Mapping[str, Any]]
) -> None:
    """Write the configuration in a checkpoint: the model, the tokenizer beside it, and other sections."""
    import yaml

    content = {
        "_target_": "megatron.bridge.training.config.ConfigContainer",
        "model": dict(described),
        **sections,
        "tokenizer": {
            "_target_": "megatron.bridge.training.tokenizers.config.TokenizerConfig",
            "tokenizer_type": "HuggingFaceTokenizer",
            "tokenizer_model": BRIDGE_TOKENIZER,
        },
    }
    (folder / BRIDGE_CONFIG).write_text(yaml.safe_dump(content), encoding="utf-8")


def train_state(step: int, samples: int) -> dict[str, Any]:
    """Return what Bridge's `train_state.pt` holds after some steps."""
    import torch

    counts = {
        "step": step,
        "consumed_train_samples": samples,
        "skipped_train_samples": 0,
        "consumed_valid_samples": 0,
    }
    return {
        **{name: torch.tensor(count, dtype=torch.int32) for name, count in counts.items()},
        "floating_point_operations_so_far": torch.tensor(0, dtype=torch.float64),
        **{name: torch.tensor(False) for name in ("do_train", "do_valid", "do_test")},
    }
