"""Which models Megatron-Bridge trains, and how NeMo's configuration of a model reads in Bridge's terms.

The fields come from the catalogue, never from Bridge's own recipes, which download from a hub.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nemolaunch.catalogue.lookup import ModelSpec
from nemolaunch.families import nemo_config

GPT = "megatron.bridge.models.gpt_provider.GPTModelProvider"
_GEMMA = "megatron.bridge.models.gemma"
# NeMo's model class -> the class of Bridge's configuration with the same code
PROVIDERS = {
    **dict.fromkeys(
        (
            "Baichuan2Model", "ChatGLMModel", "GPTModel", "LlamaModel", "LlamaNemotronModel", "MistralModel",
            "MixtralModel", "NemotronModel", "Phi3Model", "Qwen2Model", "Qwen3Model", "Starcoder2Model",
            "StarcoderModel",
        ),
        GPT,
    ),
    "GemmaModel": f"{_GEMMA}.gemma_provider.GemmaModelProvider",
    "Gemma2Model": f"{_GEMMA}.gemma2_provider.Gemma2ModelProvider",
    "Gemma3Model": f"{_GEMMA}.gemma3_provider.Gemma3ModelProvider",
    "DeepSeekModel": "megatron.bridge.models.mla_provider.MLAModelProvider",
    "MambaModel": "megatron.bridge.models.hybrid.hybrid_provider.HybridModelProvider",
}  # fmt: skip
GEMMA4 = f"{_GEMMA}.gemma4_provider.Gemma4DenseProvider"
GEMMA4_EXPERTS = f"{_GEMMA}.gemma4_provider.Gemma4ModelProvider"
# Our names of the heads of layers without a window -> those of the class of Gemma 4 with experts
GEMMA4_HEADS = {
    "global_kv_channels": "global_head_dim",
    "num_global_query_groups": "num_global_key_value_heads",
}
LLAMA4 = "nemolaunch.bridge.llama4.Llama4Provider"
# Functions of NeMo's -> Megatron's own of the same formula
FUNCTIONS = {
    "nemo.collections.llm.fn.activation.openai_gelu": "megatron.core.activations.fast_gelu",
    "nemo.collections.llm.fn.activation.squared_relu": "megatron.core.activations.squared_relu",
    "nemo.collections.llm.gpt.model.ssm.NemotronHConfigBase.<lambda>": "megatron.core.activations.squared_relu",
}
KINDS = {
    "hyena": "Bridge has no Hyena",
    "bert": "Bridge has no BERT",
    "t5": "Bridge has no pretraining of T5",
}
MTP_SCALE = (
    0.1  # the share of further tokens in the loss, of NeMo's recipe deepseek_v3 and Megatron's default
)
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
        # of Mamba: Bridge's own layers are the same; the rest is for NeMo's conversions
        "mamba_stack_spec", "mapping_type", "pre_process", "post_process", "tokenizer_library", "tokenizer_model_path",
        "tokenizer_name", "vocab_file",
        # of the original model; NeMo only writes it into config.json
        "max_position_embeddings",
        "bias_dropout_add_fusion", "async_tensor_model_parallel_allreduce",  # nothing reads them
    }
)  # fmt: skip


def provider(model: ModelSpec) -> str | None:
    """Return the class of Bridge's configuration that has a model's code; None if there is none."""
    if model.recipe.bridge_provider:
        return model.recipe.bridge_provider
    return provider_of(model.recipe.model_class, model.recipe.config_class)


def provider_of(model_class: str, config_class: str) -> str | None:
    """Return the class of Bridge's configuration that has the code of NeMo's classes; None if there is none."""
    return LLAMA4 if _is_llama4(config_class) else PROVIDERS.get(model_class)


def is_plain_gemma4(model: ModelSpec) -> bool:
    """Return whether a model is a Gemma 4 without experts, whose layers are Megatron's own in plain PyTorch."""
    return model.recipe.bridge_provider == GEMMA4


def is_llama4(model: ModelSpec) -> bool:
    """Return whether a model attends in chunks, some of its layers without positions."""
    return _is_llama4(model.recipe.config_class)


def _is_llama4(config_class: str) -> bool:
    return nemo_config.extends(config_class, "Llama4Config")


def refusal(model: ModelSpec) -> str | None:
    """Return why this backend does not train a model; None if it does."""
    if model.architecture.kind in KINDS:
        return KINDS[model.architecture.kind]
    if provider(model) is None:
        return f"NeMo's {model.recipe.config_class} has code of its own, which Bridge does not have"
    different = {
        name: value
        for name, value in _rope_scaling(model).items()
        if FIXED_ROPE_SCALING.get(name, value) != value
    }
    if different:
        name, value = next(iter(different.items()))
        return f"{name} is {value}, and Megatron-Core has {FIXED_ROPE_SCALING[name]} fixed in its code"
    return None


def differences(model: ModelSpec, seq_length: int) -> list[str]:
    """Return in which ways Bridge computes a model otherwise than NeMo 2, in sentences."""
    a, found = model.architecture, []
    window = a.window_size
    if model.recipe.model_class == "Gemma2Model" and isinstance(window, tuple) and window[0] + 1 < seq_length:
        found.append(
            f"every other layer attends to the last {window[0] + 1} tokens, as in the original model, while NeMo 2 "
            f"attends to all {seq_length}"
        )
    if a.kind == "mamba":
        found.append(
            "initial weights are drawn in another order, so losses from scratch are not those of NeMo 2"
        )
    if is_llama4(model) and a.rope_scaling:
        found.append(
            f"rotary positions are scaled by {a.rope_scaling_factor}, as the configuration says, while NeMo 2 does not "
            f"scale them"
        )
    return found


def model_fields(model: ModelSpec) -> dict[str, Any]:
    """Return the fields of NeMo's configuration of a model in Bridge's names, without those that the plan decides.

    Values are as in NeMo's `model.yaml`: functions and types are dictionaries with `_target_`.
    """
    recipe = model.recipe
    own = recipe.bridge_fields if recipe.bridge_provider else nemo_config.defaults(recipe.config_class)
    scale = _rope_scaling(model).get("scale_factor")
    found = in_bridge(recipe.model_class, {**own, **model.overrides, "scale_factor": scale})
    if recipe.bridge_provider == GEMMA4_EXPERTS:
        found = {GEMMA4_HEADS.get(name, name): value for name, value in found.items()}
    if (
        model.architecture.mtp_num_layers and not recipe.bridge_provider
    ):  # set by NeMo's recipe, not by its class
        found |= {"mtp_num_layers": model.architecture.mtp_num_layers, "mtp_loss_scaling_factor": MTP_SCALE}
    return found


def in_bridge(model_class: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of NeMo's configuration of a model in Bridge's names, without those that the plan decides."""
    found = {name: _in_bridge(value) for name, value in fields.items() if name not in PLANNED}
    scale = fields.get("scale_factor")
    if scale is not None:
        found |= {"rope_scaling": True, "rope_scaling_factor": scale}
    if "hybrid_override_pattern" in found:
        found["hybrid_layer_pattern"] = found.pop("hybrid_override_pattern")
        found["is_hybrid_model"] = True  # else output projections of Mamba layers begin smaller than NeMo's
    if model_class == "Gemma3Model":
        # Bridge counts the tokens of a window with the current one, like Hugging Face, and asks whether there are norms
        found |= {"window_size": found["window_size"] + 1, "qk_layernorm": True}
    return found


def _in_bridge(value: Any) -> Any:
    if isinstance(value, dict) and value.get("_target_") in FUNCTIONS:
        return {**value, "_target_": FUNCTIONS[value["_target_"]]}
    return value


def _rope_scaling(model: ModelSpec) -> dict[str, Any]:
    a = model.architecture
    if a.scale_factor is None:
        return {}
    return {"scale_factor": a.scale_factor, **{name: getattr(a, name) for name in FIXED_ROPE_SCALING}}
