"""The fields of Megatron-Bridge's configuration and their types, as data: what `--set` can change with that backend.

`bridge_settings.json` is written by `python -m nemolaunch.bridge.fields_dump` from Bridge itself. Types are those of
`recipe_fields`.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from nemolaunch.catalogue.bridge_models import GPT, provider
from nemolaunch.catalogue.lookup import ModelSpec

TABLE = Path(__file__).with_name("bridge_settings.json")


@functools.cache
def _table() -> dict[str, Any]:
    return dict(json.loads(TABLE.read_text(encoding="utf-8")))


def fields_of(model: ModelSpec) -> dict[str, str]:
    """Return the type of each path in the configuration of a model."""
    return _paths(provider(model) or GPT)


def model_fields(cls: str) -> frozenset[str]:
    """Return the names of the fields of a class of the model's configuration."""
    return frozenset(_table()["parts"]["model"]) | frozenset(_table()["models"].get(cls, ()))


@functools.cache
def _paths(cls: str) -> dict[str, str]:
    parts = dict(_table()["parts"])
    parts["model"] = {**parts["model"], **_table()["models"].get(cls, {})}
    return {f"{part}.{name}": kind for part, fields in parts.items() for name, kind in fields.items()}


def replaced_by(path: str) -> str | None:
    """Return the path whose value overwrites that of `path` when training starts, if there is one."""
    part, _, name = path.partition(".")
    if part in ("model", "optimizer", "ddp") and name in _table()["precision"]:
        return f"mixed_precision.{name}"
    return None
