"""Which models Megatron-Bridge trains, and how NeMo's configuration of a model reads in Bridge's terms.

The fields come from the catalogue, never from Bridge's own recipes, which download from a hub.
"""

from __future__ import annotations

from typing import Any

from nemolaunch.catalogue.lookup import ModelSpec
from nemolaunch.families import nemo_config

# Model classes of NeMo whose models are Megatron's GPT without code of their own
MODEL_CLASSES = ("LlamaModel", "MistralModel", "MixtralModel", "Qwen2Model", "Qwen3Model")
# Llama 4 attends in chunks and normalises queries and keys in code of NeMo's own
OWN_CODE = ("Llama4Config", "Llama4Experts16Config", "Llama4Experts128Config")
KINDS = {
    "mamba": "Bridge builds Mamba hybrids from kernels that this backend does not use yet",
    "hyena": "Bridge has no Hyena",
    "bert": "Bridge has no BERT",
    "t5": "Bridge has no pretraining of T5",
}
# Llama 3.1's rope scaling, as far as it is fixed in Megatron-Core (rotary_pos_embedding.py, `_apply_scaling`)
FIXED_ROPE_SCALING = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "old_context_len": 8192}
# Fields that the layout, the precision and the device of the plan decide, or that hold objects of a running process
PLANNED = frozenset(
    {
        "tensor_model_parallel_size", "pipeline_model_parallel_size", "virtual_pipeline_model_parallel_size",
        "context_parallel_size", "sequence_parallel", "expert_model_parallel_size", "expert_tensor_parallel_size",
        "num_layers_in_first_pipeline_stage", "num_layers_in_last_pipeline_stage",
        "account_for_embedding_in_pipeline_split", "account_for_loss_in_pipeline_split",
        "params_dtype", "pipeline_dtype", "autocast_dtype", "enable_autocast", "bf16", "fp16",
        "fp8", "fp8_recipe", "fp8_margin", "fp8_amax_history_len", "fp8_amax_compute_algo", "fp8_wgrad",
        "fp8_dot_product_attention", "fp8_multi_head_attention", "fp8_param", "fp4", "fp4_recipe", "fp4_param",
        "first_last_layers_bf16", "num_layers_at_start_in_bf16", "num_layers_at_end_in_bf16",
        "seq_length", "vocab_size", "gradient_accumulation_fusion", "use_te_rng_tracker",
        "transformer_layer_spec", "forward_step_fn", "data_step_fn", "generation_config", "timers",
        "grad_scale_func", "grad_sync_func", "param_sync_func", "no_sync_func", "finalize_model_grads_func",
        "init_method", "output_layer_init_method", "embedding_init_method", "_cpu_offloading_context",
        "scale_factor", *FIXED_ROPE_SCALING,
        # of the original model; NeMo only writes it into config.json
        "max_position_embeddings",
    }
)  # fmt: skip


def refusal(model: ModelSpec) -> str | None:
    """Return why this backend does not train a model; None if it does."""
    if model.architecture.kind in KINDS:
        return KINDS[model.architecture.kind]
    config = model.recipe.config_class
    if model.recipe.model_class not in MODEL_CLASSES or config in OWN_CODE:
        return f"NeMo's {config} has code of its own, which is not carried over to Bridge yet"
    different = {
        name: value
        for name, value in _rope_scaling(model).items()
        if FIXED_ROPE_SCALING.get(name, value) != value
    }
    if different:
        name, value = next(iter(different.items()))
        return f"{name} is {value}, and Megatron-Core has {FIXED_ROPE_SCALING[name]} fixed in its code"
    return None


def model_fields(model: ModelSpec) -> dict[str, Any]:
    """Return the fields of NeMo's configuration of a model in Bridge's names, without those that the plan decides.

    Values are as in NeMo's `model.yaml`: functions and types are dictionaries with `_target_`.
    """
    fields = {**nemo_config.defaults(model.recipe.config_class), **model.overrides}
    found = {name: value for name, value in fields.items() if name not in PLANNED}
    scale = _rope_scaling(model).get("scale_factor")
    if scale is not None:
        found |= {"rope_scaling": True, "rope_scaling_factor": scale}
    return found


def _rope_scaling(model: ModelSpec) -> dict[str, Any]:
    a = model.architecture
    if a.scale_factor is None:
        return {}
    return {"scale_factor": a.scale_factor, **{name: getattr(a, name) for name in FIXED_ROPE_SCALING}}
