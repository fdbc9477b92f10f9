"""Lookup of models by recipe name, flavour name or YAML file."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.catalogue import bridge_only
from nemolaunch.catalogue.architecture import Architecture
from nemolaunch.catalogue.names import did_you_mean
from nemolaunch.catalogue.recipe_table import Recipe, table
from nemolaunch.errors import UsageError

_FLAVOURS = Path(__file__).parent / "flavours"

# The recipe that a family name stands for as `base:` of a custom architecture: the smallest or most common of the
# family, without long-context variants.
FAMILY_BASE = {
    "llama": "llama3_8b", "llama2": "llama2_7b", "llama3": "llama3_8b", "llama31": "llama31_8b",
    "llama32": "llama32_1b", "llama4": "llama4_e16", "mistral": "mistral_7b", "mixtral": "mixtral_8x7b",
    "qwen2": "qwen2_7b", "qwen25": "qwen25_7b", "qwen3": "qwen3_8b", "qwen3_moe": "qwen3_30b_a3b",
    "gemma": "gemma_2b", "gemma2": "gemma2_2b", "gemma3": "gemma3_1b", "nemotron": "nemotron3_8b",
    "nemotron3": "nemotron3_8b", "nemotron4": "nemotron4_15b", "nemotronh": "nemotronh_8b",
    "deepseek": "deepseek_v2_lite", "deepseek_v2": "deepseek_v2", "deepseek_v3": "deepseek_v3",
    "starcoder": "starcoder_15b", "starcoder2": "starcoder2_7b", "phi3": "phi3_mini_4k_instruct",
    "gpt": "gpt3_175b", "gpt3": "gpt3_175b", "baichuan2": "baichuan2_7b", "chatglm3": "chatglm3_6b",
    "mamba2": "mamba2_130m", "hyena": "hyena_1b", "bert": "bert_110m", "t5": "t5_220m",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A model that can be trained.

    Attributes:
        name: recipe or flavour name, or the YAML file's stem.
        recipe: the NeMo recipe it is compiled from.
        architecture: the recipe's, with overrides applied.
        overrides: fields to set on the recipe's model config, as NeMo wants them.
        notes: how the model differs from what the source describes, in sentences.
        source: "NeMo recipe", "model of Megatron-Bridge only", "flavour shipped with nemolaunch", or the path of the
            YAML file.
    """

    name: str
    recipe: Recipe
    architecture: Architecture
    overrides: dict[str, Any]
    source: str
    notes: tuple[str, ...] = ()


def recipes() -> tuple[Recipe, ...]:
    """Return all recipes in alphabetical order."""
    return tuple(table().recipes.values())


def only_in_bridge() -> tuple[str, ...]:
    """Return the names of the models that only Megatron-Bridge has."""
    return tuple(bridge_only.recipes())


@functools.cache
def flavours() -> dict[str, Path]:
    """Return the shipped flavours: name to YAML file."""
    return {path.stem: path for path in sorted(_FLAVOURS.glob("*.yaml"))}


def _flavour(name: str) -> Path | None:
    wanted = name.lower()
    return flavours().get(wanted) or flavours().get(f"aixsim-{wanted}")


def recipe(name: str) -> Recipe:
    """Return the recipe of this exact name.

    Raises:
        UsageError: there is none; names the nearest, or why a module of this name is not a pretraining recipe.
    """
    found = _every().get(name)
    if found is None:
        raise _unknown(name)
    return found


def _every() -> dict[str, Recipe]:
    return {**table().recipes, **bridge_only.recipes()}


def _unknown(name: str) -> UsageError:
    known = table()
    family = [row.name for row in recipes() if name in (row.family, row.name.split("_")[0])]
    if name in known.not_implemented:
        reason = f"NeMo cannot pretrain {name}: {known.not_implemented[name]}"
    elif name in known.finetune_only:
        reason = f"{name} can only be fine-tuned; NeMo has no pretraining recipe for it."
    elif family:
        reason = f"{name!r} is a family of models; its recipes are {', '.join(family)}."
    elif name in known.helpers:
        reason = f"{name!r} is a helper module of NeMo's recipes, not a recipe."
    else:
        reason = f"there is no model {name[:80]!r}.{did_you_mean(name, [*_every(), *flavours()])}"
    return UsageError(f"--model-name: {reason} `nemolaunch models` lists all models.")


def _base_recipe(name: object, where: str) -> Recipe:
    if not isinstance(name, str):
        raise UsageError(f"{where}: `base:` must name a recipe or a family, e.g. `base: llama3`.")
    word = FAMILY_BASE.get(name.lower().replace(".", ""), name)
    if word in _every():
        return _every()[word]
    near = did_you_mean(name, [*_every(), *FAMILY_BASE])
    raise UsageError(f"{where}: base {name!r} is neither a recipe nor a family.{near}")


def model_from_file(path: Path, *, source: str | None = None) -> ModelSpec:
    """Return the model that a YAML file describes.

    Raises:
        UsageError: the file is invalid; lists all errors, one per line.
    """
    from nemolaunch.catalogue.yamlform import apply_form, read_form

    form = read_form(path)
    base = _base_recipe(form.get("base"), str(path))
    architecture, overrides, faults = apply_form(form, base.architecture, base.name)
    if faults:
        raise UsageError(f"--model-name: {path} does not describe a valid model:\n  " + "\n  ".join(faults))
    name = form.get("name", path.stem)
    origin = source or str(path)
    return ModelSpec(
        name=str(name), recipe=base, architecture=architecture, overrides=overrides, source=origin
    )


def model(name_or_path: str) -> ModelSpec:
    """Return the model of this recipe name, flavour name (in any case) or YAML file.

    Raises:
        UsageError: there is none, and the message names the nearest; or the file is invalid, and it lists all errors.
    """
    if name_or_path in _every():
        found = _every()[name_or_path]
        source = "model of Megatron-Bridge only" if found.bridge_provider else "NeMo recipe"
        return ModelSpec(
            name=found.name, recipe=found, architecture=found.architecture, overrides={}, source=source
        )
    flavour = _flavour(name_or_path)
    if flavour:
        return model_from_file(flavour, source="flavour shipped with nemolaunch")
    path = Path(name_or_path)
    if path.suffix.lower() in (".yaml", ".yml") or _is_file(path):
        return model_from_file(path)
    raise _unknown(name_or_path)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # name too long, or with a null character
        return False
