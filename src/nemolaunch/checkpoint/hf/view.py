"""A model in the form that Hugging Face has it, whatever format it is stored in."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemolaunch.checkpoint.storage.tensors import TensorSource


@dataclass(frozen=True, kw_only=True)
class ModelView:
    """A model as it passes from one format to another.

    Attributes:
        config: the `config.json`, including the dtype of the weights.
        source: the tensors, with Hugging Face's names.
        tokenizer: the folder with the tokenizer.
        generation: the `generation_config.json`, if there is one.
        title: a short description of the model and its format.
        left_out: the names of source tensors that are not part of the model.
        changed: intentional differences from the source, in words.
    """

    config: dict[str, Any]
    source: TensorSource
    tokenizer: Path
    generation: Path | None = None
    title: str = ""
    left_out: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
