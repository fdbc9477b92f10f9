"""NeMo's pretraining recipes as data. `recipes.json` is written by `nemolaunch.nemo2.catalogue_dump`."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemolaunch.catalogue.architecture import Architecture
from nemolaunch.catalogue.optimizer_table import OptimizerDefaults

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A `pretrain_recipe` of NeMo with the values it sets when called with its defaults.

    Attributes:
        name: module of `nemo.collections.llm.recipes`.
        family: the part of the name before the size.
        model_class, config_class: names in `nemo.collections.llm`.
        seq_length: tokens per sample of the recipe's data; `architecture.seq_length` may differ.
        max_steps, val_check_interval: optimizer steps.
        pipeline_dtype_set: whether the recipe sets the number format passed between pipeline stages.
        precision: precision plugin in Lightning's spelling, e.g. `bf16-mixed`.
        optimizer: its optimizer settings and warmup.
        moment_bytes: bytes of Adam's two moments if the recipe's optimizer is precision-aware, else None (fp32).
        attention_backend: name in Megatron's `AttnBackend`.
        overlap_grad_reduce, overlap_param_gather: overlap set in its DDP config; a callback may override it.
        performance_mode: whether the recipe function accepts `performance_mode=True`.
        finetune: whether the module also has a `finetune_recipe`.
        hf_import, hf_export: whether the model class converts from and to Hugging Face.
        bridge_provider: of a model that only Megatron-Bridge has, the class of its configuration; the two classes
            above are then those of transformers.
        bridge_layers: the function of Bridge's or Megatron's that describes its layers, if it is not that class's.
        bridge_fields: what differs from that class.
    """

    name: str
    family: str
    model_class: str
    config_class: str
    tensor_model_parallel_size: int
    pipeline_model_parallel_size: int
    virtual_pipeline_model_parallel_size: int | None
    context_parallel_size: int
    expert_model_parallel_size: int
    expert_tensor_parallel_size: int | None
    sequence_parallel: bool
    num_nodes: int
    num_gpus_per_node: int
    global_batch_size: int
    micro_batch_size: int
    seq_length: int
    max_steps: int
    val_check_interval: int | float
    pipeline_dtype_set: bool
    precision: str
    recompute_granularity: str | None
    recompute_method: str | None
    recompute_num_layers: int | None
    recompute_modules: tuple[str, ...] | None
    optimizer: OptimizerDefaults
    moment_bytes: int | None
    attention_backend: str
    overlap_grad_reduce: bool
    overlap_param_gather: bool
    callbacks: tuple[str, ...]
    performance_mode: bool
    finetune: bool
    hf_import: bool
    hf_export: bool
    architecture: Architecture
    bridge_provider: str | None = None
    bridge_layers: str | None = None
    bridge_fields: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, kw_only=True)
class RecipeTable:
    """The content of `recipes.json`.

    Attributes:
        versions: releases of NeMo and Megatron Core that it was read from.
        recipes: by name, in alphabetical order.
        finetune_only: recipe modules that only support fine-tuning.
        not_implemented: modules whose `pretrain_recipe` only raises, with NeMo's reason.
        helpers: modules of the recipes package that are not recipes.
    """

    versions: Mapping[str, str]
    recipes: Mapping[str, Recipe]
    finetune_only: tuple[str, ...]
    not_implemented: Mapping[str, str]
    helpers: tuple[str, ...]


def _with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


@functools.cache
def table() -> RecipeTable:
    """Return the shipped recipes, read once."""
    data = json.loads((_FOLDER / "recipes.json").read_text(encoding="utf-8"))
    recipes = {}
    for row in data["recipes"]:
        architecture = Architecture(**_with_tuples(row.pop("architecture")))
        optimizer = OptimizerDefaults(**row.pop("optimizer"), source=f"the recipe {row['name']}")
        recipes[row["name"]] = Recipe(**_with_tuples(row), architecture=architecture, optimizer=optimizer)
    return RecipeTable(
        versions=data["versions"],
        recipes=recipes,
        finetune_only=tuple(data["finetune_only"]),
        not_implemented=data["not_implemented"],
        helpers=tuple(data["helpers"]),
    )
