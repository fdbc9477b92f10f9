"""The fields of NeMo's recipes and their types, as data: what `--set` can change.

`recipe_fields.json` is written by `python -m nemolaunch.nemo2.fields_dump` from NeMo itself. A type is a list of
alternatives separated by `|`: `bool`, `int`, `float`, `str`, `null`, `dtype`, `list[…]` or `tuple[…]` of one of
these, a constant in JSON such as `"link"`, or `object` for what cannot be written as text.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemolaunch.catalogue.recipe_table import Recipe

TABLE = Path(__file__).with_name("recipe_fields.json")
DTYPES = {
    "float32": "float32", "fp32": "float32", "bfloat16": "bfloat16", "bf16": "bfloat16", "float16": "float16",
    "fp16": "float16", "uint8": "uint8", "fp8": "uint8",
}  # fmt: skip
_NAMES = {
    "bool": "true or false", "int": "a whole number", "float": "a number", "str": "text", "null": "null",
    "dtype": "float32, bfloat16, float16 or uint8", "list": "a list, such as [a, b]", "tuple": "a list, such as [a, b]",
}  # fmt: skip


@functools.cache
def _table() -> dict[str, Any]:
    return dict(json.loads(TABLE.read_text(encoding="utf-8")))


def fields_of(name: str, classes: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Return all fields of a class with their types, including inherited ones."""
    row = (_table()["classes"] if classes is None else classes)[name]
    fields: dict[str, str] = {}
    for parent in reversed(row["extends"]):
        fields |= fields_of(parent, classes)
    return fields | row["fields"]


@functools.cache
def recipe_fields(recipe: Recipe) -> dict[str, str]:
    """Return the type of each path in the compiled recipe; of a model that NeMo does not have, none."""
    if recipe.bridge_provider:
        return {}
    classes = {**_table()["roots"], "model.config": recipe.config_class}
    own_data = classes.pop("data of t5")
    if recipe.architecture.kind == "t5":
        classes["data"] = own_data
    return {
        f"{root}.{name}": kind
        for root, cls in classes.items()
        for name, kind in fields_of(cls).items()
        if not name.startswith("_") and f"{root}.{name}" not in classes
    }


@functools.cache
def all_paths() -> tuple[str, ...]:
    """Return the paths that the recipe of any model has, those of the model first."""
    from nemolaunch.catalogue.lookup import recipes

    paths = dict.fromkeys(path for recipe in recipes() for path in recipe_fields(recipe))
    return tuple(sorted(paths, key=lambda path: not path.startswith("model.")))


def replaced_by(path: str) -> str | None:
    """Return the path whose value overwrites that of `path` when training starts, if there is one."""
    part, _, name = path.rpartition(".")
    if part not in ("model.config", "optim.config", "trainer.strategy.ddp"):
        return None
    sources = _table()["replaced"]
    if name in sources["trainer.plugins"]:
        return f"trainer.plugins.{name}"
    if part != "optim.config" and name in sources["trainer.strategy"]:
        return f"trainer.strategy.{name}"
    return None


def callback_fields(callback: str) -> tuple[str, ...]:
    """Return the fields of the model, optimizer and gradient buffers that a callback overwrites."""
    return tuple(_table()["callbacks"].get(callback, ()))


def not_on_cpu(path: str, *, bridge: bool = False) -> bool:
    """Return whether a rehearsal on the CPU switches this off; `bridge`: a path of Megatron-Bridge's configuration."""
    if bridge:
        path = path.replace("model.", "model.config.", 1).replace("optimizer.", "optim.config.", 1)
    return path in _table()["not_on_cpu"]


def kind_words(kind: str) -> str:
    """Return a type in words: `a whole number or null`."""
    words = list(dict.fromkeys(_kind_word(one) for one in kind.split("|")))
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]


def _kind_word(kind: str) -> str:
    if kind.startswith('"'):
        return str(json.loads(kind))
    return _NAMES.get(kind.partition("[")[0], kind)


def converted(value: Any, kind: str) -> Any:
    """Return a value in the form that one of the alternatives of a type has; data types by name.

    Raises:
        ValueError: it has none of the types.
    """
    for one in kind.split("|"):
        try:
            return _as_one(value, one)
        except (ValueError, OverflowError):
            continue
    raise ValueError(f"{value!r} is not {kind_words(kind)}")


def _as_one(value: Any, kind: str) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "null" and value is None:
        return None
    if (kind == "bool" and isinstance(value, bool)) or (kind == "str" and isinstance(value, str)):
        return value
    if kind == "int" and number and value == int(value):
        return int(value)
    if kind == "float" and number:
        return float(value)
    if kind == "dtype" and isinstance(value, str) and value.removeprefix("torch.") in DTYPES:
        return DTYPES[value.removeprefix("torch.")]
    if kind[:1] in '"0123456789' and json.loads(kind) == value and not isinstance(value, bool):
        return value
    outer, _, inner = kind.partition("[")
    if outer in ("list", "tuple") and isinstance(value, list):
        kinds = inner[:-1].replace(" ", "|")
        items = [converted(item, kinds) for item in value] if kinds else value
        return tuple(items) if outer == "tuple" else items
    raise ValueError
