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
    seq_length: int = 4096
    batch: int = 512
    parameters: int


_LAYOUTS = {
    # Of ERNIE, GLM-4.7-Flash, Hy3, Ling, MiMo, MiniMax-M2 and Sarvam Bridge has no recipe
    "ernie45_21b_a3b": _Layout(family="ernie45", gpus=8, parameters=21 * 10**9),
    "exaone4_1p2b": _Layout(family="exaone", gpus=8, expert=1, parameters=1280 * 10**6),
    # Bridge has a recipe of E4B, with two GPUs, and of 26B-A4B one that reads images
    "gemma4_26b_a4b": _Layout(family="gemma4", gpus=16, tensor=2, parameters=25_200 * 10**6),
    "gemma4_31b": _Layout(family="gemma4", gpus=64, tensor=4, expert=1, parameters=30_700 * 10**6),
    "gemma4_e2b": _Layout(family="gemma4", gpus=8, expert=1, parameters=5100 * 10**6),
    "gemma4_e4b": _Layout(family="gemma4", gpus=8, tensor=2, expert=1, parameters=8000 * 10**6),
    "glm45": _Layout(
        family="glm45", gpus=128, tensor=2, pipeline=8, expert=16, batch=2048, parameters=355 * 10**9
    ),
    "glm45_air": _Layout(family="glm45", gpus=32, pipeline=4, batch=2048, parameters=106 * 10**9),
    "glm47_flash": _Layout(family="glm47", gpus=8, parameters=30 * 10**9),
    "gpt_oss_120b": _Layout(
        family="gpt_oss", gpus=64, tensor=2, pipeline=4, expert=16, parameters=117 * 10**9
    ),
    "gpt_oss_20b": _Layout(family="gpt_oss", gpus=16, tensor=2, pipeline=4, expert=4, parameters=21 * 10**9),
    "hy3_295b_a21b": _Layout(family="hy3", gpus=128, tensor=2, pipeline=8, parameters=295 * 10**9),
    "k_exaone_236b_a23b": _Layout(
        family="exaone", gpus=64, tensor=4, pipeline=8, batch=1024, parameters=236 * 10**9
    ),
    "kimi_k2": _Layout(
        family="kimi", gpus=512, tensor=2, pipeline=16, expert=32, batch=4096, parameters=1040 * 10**9
    ),
    "ling_mini_2": _Layout(family="ling", gpus=8, parameters=16 * 10**9),
    "mimo_7b": _Layout(family="mimo", gpus=8, tensor=2, expert=1, parameters=7 * 10**9),
    "minimax_m2": _Layout(family="minimax", gpus=128, tensor=2, pipeline=8, parameters=230 * 10**9),
    "moonlight_16b": _Layout(family="moonlight", gpus=8, tensor=2, batch=2048, parameters=16 * 10**9),
    "nemotron_3_nano_30b_a3b": _Layout(
        family="nemotron_3", gpus=8, seq_length=8192, batch=1024, parameters=31_600 * 10**6
    ),
    "nemotron_3_nano_4b": _Layout(family="nemotron_3", gpus=8, expert=1, batch=1024, parameters=3970 * 10**6),
    # Bridge's recipe has 16 GPUs, moments in bf16, and copies of the two key/value heads for TP 8
    "nemotron_3_super_120b_a12b": _Layout(
        family="nemotron_3",
        gpus=64,
        tensor=2,
        expert=16,
        seq_length=8192,
        batch=1024,
        parameters=120 * 10**9,
    ),
    # and 24 GPUs, which hold no more than a try
    "nemotron_3_ultra_550b_a55b": _Layout(
        family="nemotron_3",
        gpus=384,
        tensor=2,
        pipeline=3,
        expert=64,
        seq_length=8192,
        batch=3072,
        parameters=550 * 10**9,
    ),
    "olmoe_7b": _Layout(family="olmoe", gpus=8, parameters=7 * 10**9),
    # Bridge's recipes of the language models are for GB200, and only of two; those for images are for H100
    "qwen35_122b_a10b": _Layout(family="qwen35", gpus=64, tensor=2, pipeline=4, parameters=122 * 10**9),
    "qwen35_27b": _Layout(family="qwen35", gpus=16, tensor=4, pipeline=4, expert=1, parameters=27 * 10**9),
    "qwen35_35b_a3b": _Layout(family="qwen35", gpus=16, pipeline=2, parameters=35 * 10**9),
    "qwen35_397b_a17b": _Layout(
        family="qwen35", gpus=256, tensor=2, pipeline=4, expert=32, parameters=397 * 10**9
    ),
    "qwen35_4b": _Layout(family="qwen35", gpus=8, tensor=2, expert=1, parameters=4 * 10**9),
    "qwen35_800m": _Layout(family="qwen35", gpus=8, expert=1, parameters=800 * 10**6),
    "qwen35_9b": _Layout(family="qwen35", gpus=8, tensor=4, expert=1, parameters=9 * 10**9),
    "qwen3_next_80b_a3b": _Layout(family="qwen3_next", gpus=32, pipeline=4, parameters=80 * 10**9),
    "sarvam_105b": _Layout(family="sarvam", gpus=32, pipeline=4, parameters=105 * 10**9),
    "sarvam_30b": _Layout(family="sarvam", gpus=16, parameters=30 * 10**9),
}


def architecture_of(config_class: str) -> str:
    """Return the name of the model class of transformers that has a configuration class."""
    return config_class.removesuffix("Config").removesuffix("Text") + "ForCausalLM"


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
        model_class=architecture_of(row["hf"]),
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
        global_batch_size=layout.batch,
        micro_batch_size=1,
        seq_length=layout.seq_length,
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
        overlap_grad_reduce=not shape.get("num_kv_shared_layers"),  # some of their norms get no gradient
        overlap_param_gather=True,
        callbacks=(),
        performance_mode=False,
        finetune=False,
        hf_import=False,
        hf_export=False,
        architecture=Architecture(**{**shape, "seq_length": layout.seq_length}),
        bridge_provider=row["provider"],
        bridge_layers=row["layers"],
        bridge_fields=row["fields"],
    )
