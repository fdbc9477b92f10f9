"""NeMo 2 checkpoint folders: a distributed checkpoint in `weights/`, and the model's description in `context/`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.checkpoint.hf import output
from nemolaunch.checkpoint.megatron.names import WRAPPER, MegatronSource
from nemolaunch.checkpoint.megatron.sink import WeightsSink
from nemolaunch.checkpoint.nemo2 import context
from nemolaunch.checkpoint.storage.dcp import DcpSource
from nemolaunch.checkpoint.storage.tensors import TensorInfo
from nemolaunch.errors import UsageError
from nemolaunch.facts.checkpoint import look_at_checkpoint
from nemolaunch.families.nemo_config import NemoConfig
from nemolaunch.trust.checkpoint import check_checkpoint

# What NeMo's importers save for an untrained model: Lightning's state, and Megatron's layout
COMMON: dict[str, Any] = {
    "epoch": 0,
    "global_step": 0,
    "pytorch-lightning_version": "2.4.0",
    "state_dict": {},
    "callbacks": {},
    "optimizer_states": [],
    "lr_schedulers": [],
    "content_metadata": {
        "singleton_local_shards": False,
        "chained_optim_avoid_prefix": True,
        "distrib_optim_sharding_type": "dp_reshardable",
    },
}


@dataclass(frozen=True)
class Nemo2Folder:
    """A checked checkpoint folder."""

    path: Path
    config: NemoConfig

    @property
    def weights(self) -> Path:
        """The distributed checkpoint."""
        return self.path / "weights"

    @property
    def context(self) -> Path:
        """The description of the model."""
        return self.path / "context"

    @property
    def tokenizer_copy(self) -> Path:
        """The files of the tokenizer, in a checkpoint that nemolaunch or NeMo's importers wrote."""
        return self.context / context.TOKENIZER

    @property
    def generation(self) -> Path:
        """The generation config, if the checkpoint has one."""
        return self.context / context.ARTIFACTS / context.GENERATION

    def source(self) -> MegatronSource:
        """Open the parameters. Raises `NemolaunchError` if the checkpoint is damaged or incomplete."""
        return MegatronSource(DcpSource(self.weights))

    def find_tokenizer(self, given: Path | None) -> Path:
        """Return the folder with the tokenizer: the given one, or the one that the context records."""
        return output.find_tokenizer(self.context, context.recorded_tokenizer(self.context), given)

    def check_names(self) -> None:
        """Raise `NemolaunchError` if the context or a pickle names what NeMo's own checkpoints do not."""
        check_checkpoint(self.path)


def read_folder(path: Path) -> Nemo2Folder:
    """Check a checkpoint folder, or its `weights/`, and read the description of the model.

    Raises:
        UsageError: it is not a complete NeMo 2 checkpoint of a whole model.
        NemolaunchError: its context is damaged.
    """
    if path.name == "weights" and (path.parent / "context").is_dir():
        path = path.parent
    found = look_at_checkpoint(str(path), trusted=True)
    if found.error:
        raise UsageError(f"{path}: {found.error}")
    if (path / "weights" / "adapter_metadata.json").is_file():
        raise UsageError(
            f"{path} is a LoRA adapter; merge it into its base model first (llm.peft.merge_lora)"
        )
    if (path / "weights" / "modelopt_state").exists():
        raise UsageError(f"{path} was quantised by ModelOpt; export it with NeMo's llm.export_ckpt instead")
    return Nemo2Folder(path, context.read_config(path / "context"))


def begin(
    output: Path,
    config: NemoConfig,
    tokenizer: Path,
    parameters: Mapping[str, TensorInfo],
    fields: Mapping[str, Any],
) -> WeightsSink:
    """Write the description of a model to a new checkpoint `output`, and return the sink of its weights.

    Args:
        tokenizer: the folder with the tokenizer and the generation config.
        fields: those of `config`, with what the model's family adds.
    """
    context.write_context(output / "context", config, tokenizer)
    return WeightsSink(output / "weights", parameters, fields, COMMON, WRAPPER)
