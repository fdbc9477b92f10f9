"""Models that only Megatron-Bridge has, as data.

`bridge_only.json` is written by `python -m nemolaunch.bridge.models_dump` from transformers' and Bridge's own classes.
Layouts and batch sizes are those of Bridge's pretraining recipes for H100.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemolaunch.catalogue.architecture import Architecture
from nemolaunch.catalogue.optimizer_table import by_size
from nemolaunch.catalogue.recipe_table import Recipe

TABLE = Path(__file__).with_name("bridge_only.json")
SHAPE = tuple(
    field.name
    for field in dataclasses.fields(Architecture)
    if field.name not in ("kind", "post_layer_norms", "seq_length", "encoder_num_layers")
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Layout:
    """Sizes of Bridge's recipe of a model, and its parameters as published."""

    family: str
    gpus: int
    tensor: int = 1
    pipeline: int = 1
    expert: int = 8
    parameters: int


_LAYOUTS = {
    "gpt_oss_120b": _Layout(
        family="gpt_oss", gpus=64, tensor=2, pipeline=4, expert=16, parameters=117 * 10**9
    ),
    "gpt_oss_20b": _Layout(family="gpt_oss", gpus=16, tensor=2, pipeline=4, expert=4, parameters=21 * 10**9),
    "olmoe_7b": _Layout(family="olmoe", gpus=8, expert=8, parameters=7 * 10**9),
}


@functools.cache
def recipes() -> Mapping[str, Recipe]:
    """Return these models, by name, as rows like those of NeMo's recipes."""
    data = json.loads(TABLE.read_text(encoding="utf-8"))
    return {name: _recipe(name, row) for name, row in data["models"].items()}


def _recipe(name: str, row: dict[str, Any]) -> Recipe:
    layout = _LAYOUTS[name]
    shape: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in row["shape"].items()
    }
    shape["activation_func"] = shape["activation_func"]["_target_"].rpartition(".")[2]
    return Recipe(
        name=name,
        family=layout.family,
        model_class=row["hf"].replace("Config", "ForCausalLM"),
        config_class=row["hf"],
        tensor_model_parallel_size=layout.tensor,
        pipeline_model_parallel_size=layout.pipeline,
        virtual_pipeline_model_parallel_size=None,
        context_parallel_size=1,
        expert_model_parallel_size=layout.expert,
        expert_tensor_parallel_size=1,
        sequence_parallel=layout.tensor > 1,
        num_nodes=layout.gpus // 8,
        num_gpus_per_node=8,
        global_batch_size=512,
        micro_batch_size=1,
        seq_length=4096,
        max_steps=1_000_000,
        val_check_interval=2000,
        pipeline_dtype_set=True,
        precision="bf16-mixed",
        recompute_granularity=None,
        recompute_method=None,
        recompute_num_layers=None,
        recompute_modules=None,
        optimizer=by_size(layout.parameters),
        moment_bytes=None,
        attention_backend="auto",
        overlap_grad_reduce=True,
        overlap_param_gather=True,
        callbacks=(),
        performance_mode=False,
        finetune=False,
        hf_import=False,
        hf_export=False,
        architecture=Architecture(**{**shape, "seq_length": 4096}),
        bridge_provider=row["provider"],
        bridge_fields=row["fields"],
    )
