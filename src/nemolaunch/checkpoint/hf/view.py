"""A model seen as Hugging Face has it, whatever the format it is stored in."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemolaunch.checkpoint.storage.tensors import TensorSource


@dataclass(frozen=True, kw_only=True)
class ModelView:
    """What a conversion between two formats passes on.

    Attributes:
        config: `config.json`, with the type of the weights.
        source: the tensors under Hugging Face's names.
        tokenizer: folder with the tokenizer.
        generation: `generation_config.json`, if there is one.
        title: the format and model in a few words.
        left_out: names of source tensors that are no part of it.
        changed: what differs on purpose from the source, in words.
    """

    config: dict[str, Any]
    source: TensorSource
    tokenizer: Path
    generation: Path | None = None
    title: str = ""
    left_out: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
