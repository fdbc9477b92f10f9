"""NeMo's configuration classes as data: the defaults of fields that a checkpoint does not record.

`nemo_configs.json` is written by `python -m nemolaunch.nemo2.config_dump` from NeMo itself. Models that only
Megatron-Bridge has are described by its own classes, in `bridge_configs.json`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("nemo_configs.json")
BRIDGE_TABLE = Path(__file__).with_name(
    "bridge_configs.json"
)  # by `python -m nemolaunch.bridge.configs_dump`


@functools.cache
def _table() -> dict[str, Any]:
    return dict(json.loads(TABLE.read_text(encoding="utf-8")))


@functools.cache
def bridge_classes() -> dict[str, Any]:
    """Return Bridge's classes like `classes`."""
    return dict(json.loads(BRIDGE_TABLE.read_text(encoding="utf-8"))["configs"])


def classes() -> dict[str, Any]:
    """Return, by class name, its `module`, the class it `extends`, and the `defaults` it changes."""
    return dict(_table()["configs"])


def model_module(model_class: str) -> str:
    """Return the module of a model class."""
    return str(_table()["models"][model_class])


def defaults(name: str, table: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return all fields of a class with their defaults, as in NeMo's `model.yaml`; {} if it is unknown."""
    known = classes() if table is None else table
    row = known.get(name) or bridge_classes().get(name)
    if row is None:
        return {}
    inherited = defaults(row["extends"], table) if row["extends"] else {}
    return {**inherited, **row["defaults"]}


def extends(name: str | None, ancestor: str) -> bool:
    """Return whether a class is `ancestor` or derives from it."""
    while name and name != ancestor:
        name = classes().get(name, {}).get("extends")
    return name == ancestor


@dataclass(frozen=True)
class NemoConfig:
    """A NeMo model's configuration.

    Attributes:
        model_class: for example "LlamaModel".
        config_class: for example "Llama31Config".
        fields: the fields that are set, with values as in `model.yaml`; others have the class's defaults.
    """

    model_class: str
    config_class: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def only_in_bridge(self) -> bool:
        """Whether NeMo 2 has no such model, so that the fields are Bridge's."""
        return self.config_class in bridge_classes()

    @property
    def resolved(self) -> dict[str, Any]:
        """All fields, including defaults."""
        return {**defaults(self.config_class), **self.fields}


# NeMo's layers for masked language models, which attend to both sides
BIDIRECTIONAL_LAYERS = "nemo.collections.llm.gpt.model.llama_embedding.get_nv_embedding_layer_spec"


def symbol(name: str) -> dict[str, Any]:
    """Return a class, function or type as `model.yaml` writes it."""
    return {"_target_": name, "_call_": False}


def symbol_path(value: Any) -> str | None:
    """Return a symbol's name with its module; None if the value is not a symbol."""
    return str(value["_target_"]) if isinstance(value, dict) and "_target_" in value else None


def symbol_name(value: Any) -> str | None:
    """Return the last part of a symbol's name, such as "silu"; None if the value is not a symbol."""
    path = symbol_path(value)
    return None if path is None else path.rpartition(".")[2]
