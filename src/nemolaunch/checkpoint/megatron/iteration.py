"""A checkpoint of Megatron's own loops, `iter_N/`: everything about it lies in that one folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nemolaunch.checkpoint.hf import output as hf_output
from nemolaunch.checkpoint.megatron.folder import ModelSource
from nemolaunch.checkpoint.megatron.names import MegatronSource
from nemolaunch.checkpoint.storage.dcp import DcpSource
from nemolaunch.families.nemo_config import NemoConfig
from nemolaunch.run.folder import BRIDGE_TOKENIZER


@dataclass(frozen=True)
class IterationFolder:
    """A checked checkpoint folder of Megatron-Bridge or Megatron-LM."""

    path: Path
    config: NemoConfig

    @property
    def weights(self) -> Path:
        """The distributed checkpoint, or the files of all ranks."""
        return self.path

    @property
    def tokenizer_copy(self) -> Path:
        """The files of the tokenizer. Megatron-LM saves none, and Bridge may be told not to; nemolaunch copies them."""
        return self.path / BRIDGE_TOKENIZER

    @property
    def generation(self) -> Path:
        """The generation config, in a checkpoint that nemolaunch converted."""
        return self.tokenizer_copy / hf_output.GENERATION

    @property
    def named_tokenizer(self) -> object:
        """What the checkpoint names as the tokenizer: a path, an id of the Hub, or something else."""
        return None

    def source(self) -> ModelSource:
        """Open the parameters. Raises `NemolaunchError` if the checkpoint is damaged or incomplete."""
        return MegatronSource(DcpSource(self.weights))

    def find_tokenizer(self, given: Path | None) -> Path:
        """Return the folder with the tokenizer: the given one, the checkpoint's copy, or the named one."""
        named = BRIDGE_TOKENIZER if self.tokenizer_copy.is_dir() else self.named_tokenizer
        return hf_output.find_tokenizer(self.path, named if isinstance(named, str) else None, given)

    def check_names(self) -> None:
        """Do nothing where no framework loads it: what its arguments name is not imported."""
