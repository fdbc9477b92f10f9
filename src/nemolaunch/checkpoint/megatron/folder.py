"""A checkpoint with a Megatron model and its description, whichever framework wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from nemolaunch.checkpoint.storage.tensors import TensorSource
from nemolaunch.families.nemo_config import NemoConfig


class ModelSource(TensorSource, Protocol):
    """The parameters of a checkpoint, with the names of the model's state dict."""

    @property
    def training_state(self) -> list[str]:
        """The names of what the checkpoint holds besides."""


class MegatronFolder(Protocol):
    """A checked checkpoint folder: its weights, and the model in NeMo's terms."""

    @property
    def path(self) -> Path:
        """The checkpoint."""

    @property
    def config(self) -> NemoConfig:
        """The model's configuration."""

    @property
    def weights(self) -> Path:
        """The distributed checkpoint."""

    @property
    def tokenizer_copy(self) -> Path:
        """Where the checkpoint holds the files of its tokenizer, if it does."""

    @property
    def generation(self) -> Path:
        """Where the checkpoint holds the generation config, if it does."""

    def source(self) -> ModelSource:
        """Open the parameters. Raises `NemolaunchError` if the checkpoint is damaged or incomplete."""

    def find_tokenizer(self, given: Path | None) -> Path:
        """Return the folder with the tokenizer: the given one, or the one that the checkpoint records.

        Raises `UsageError` if there is none.
        """

    def check_names(self) -> None:
        """Raise `NemolaunchError` if something in the checkpoint names what checkpoints of its kind do not."""
