"""Which fields of NeMo's configuration decide what a model computes, and how two configurations differ in them.

Fields that are not known to be harmless count: a new one is compared until it is listed here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from nemolaunch.families.nemo_config import symbol_name

# Parallelism, kernels, precision, memory and communication: how something is computed, not what
HARMLESS_BEGINNINGS = (
    "_", "account_for_", "autocast_", "barrier_", "batch_p2p_", "bias_", "cpu_offloading", "cross_entropy_",
    "cuda_graph", "disable_", "enable_", "first_last_layers_", "fp16", "fp32_", "fp4", "fp8", "inference_", "masked_",
    "moe_aux_", "moe_deepep_", "moe_enable_deepep", "moe_layer_recompute", "moe_permute_", "moe_per_layer_",
    "moe_shared_expert_overlap", "mtp_", "num_layers_at_", "num_layers_in_", "overlap_", "pipeline_", "recompute_",
    "tokenizer_", "tp_", "use_", "virtual_",
)  # fmt: skip
HARMLESS_ENDINGS = ("_fn", "_func", "_fusion", "_init_method", "_init_method_std", "_parallel_size", "_spec")
HARMLESS = frozenset(
    {
        "activation_func_fp8_input_store", "apply_query_key_layer_scaling", "async_tensor_model_parallel_allreduce",
        "attention_backend", "attention_softmax_in_fp32", "bf16", "cache_mla_latents", "calculate_per_token_loss",
        "clone_scatter_output_in_embedding", "config_logger_dir", "context_parallel_size", "cp_comm_type",
        "deallocate_pipeline_outputs", "defer_embedding_wgrad_compute", "delay_wgrad_compute", "deterministic_mode",
        "distribute_saved_activations", "external_cuda_graph", "flash_decode", "fused_single_qkv_rope",
        "generation_config", "get_attention_mask_from_fusion", "gradient_accumulation_fusion",
        "hetereogenous_dist_checkpoint", "heterogeneous_layers_config_path", "hierarchical_context_parallel_sizes",
        "hybrid_attention_ratio", "hybrid_mlp_ratio", "init_method", "init_method_std",
        "init_model_with_meta_device", "is_hybrid_model", "is_vision_language", "make_vocab_size_divisible_by",
        "mapping_type", "max_position_embeddings", "memory_efficient_layer_norm",
        "microbatch_group_size_per_vp_stage", "mlp_chunks_for_prefill", "moe_expert_capacity_factor",
        "moe_extended_tp", "moe_grouped_gemm", "moe_input_jitter_eps", "moe_pad_expert_input_to_capacity",
        "moe_router_bias_update_rate", "moe_router_dtype", "moe_router_force_load_balancing", "moe_router_fusion",
        "moe_router_load_balancing_type", "moe_router_padding_for_fp8", "moe_router_topk_limited_devices",
        "moe_token_dispatcher_type", "moe_token_drop_policy", "moe_token_dropping", "moe_use_legacy_grouped_gemm",
        "moe_z_loss_coeff", "num_microbatches_with_partial_activation_checkpoints", "parallel_output", "params_dtype",
        "perform_initialization", "persist_layer_norm", "post_process", "pre_process", "quant_recipe",
        "scatter_embedding_sequence_parallel", "seq_length", "sequence_parallel", "symmetric_ar_type", "test_mode",
        "timers", "transformer_impl", "variable_seq_lengths", "vocab_file", "wgrad_deferral_limit",
    }
)  # fmt: skip
# Of Megatron-Core 0.16, for kernels, memory and the optimizer: not in the table of the release that is installed
HARMLESS_LATER = frozenset(
    {
        "kitchen_attention_backend", "min_offloaded_tensor_size", "moe_flex_dispatcher_backend",
        "moe_hybridep_num_sms", "offload_modules", "qk_clip", "qk_clip_alpha", "qk_clip_threshold",
    }
)  # fmt: skip
ACTIVATION = "activation_func"  # ends like the functions that only train
# They change how a model is trained, not what it computes
DROPOUT = frozenset({"hidden_dropout", "attention_dropout"})
# They decide which parameters a model has, beyond its sizes
PARAMETERS = frozenset(
    {
        "add_bias_linear", "add_qkv_bias", "gated_linear_unit", "heterogeneous_layers_config_encoded_json",
        "moe_layer_freq", "moe_router_enable_expert_bias", "moe_shared_expert_intermediate_size", "normalization",
        "num_moe_experts", "q_lora_rank", "kv_lora_rank", "qk_head_dim", "qk_layernorm", "qk_pos_emb_head_dim",
        "share_embeddings_and_output_weights", "v_head_dim",
    }
)  # fmt: skip
# Values that compute the same as a field that is not set
NEUTRAL = {
    "moe_router_group_topk": 1, "moe_router_num_groups": 1, "rope_scaling_factor": 1.0, "rotary_percent": 1.0,
    "scale_factor": 1.0, "seq_len_interpolation_factor": 1.0,
    # Defaults of Megatron-Core 0.16, whose linear attention needs `experimental_attention_variant`
    "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
    "linear_num_key_heads": 16, "linear_num_value_heads": 32,
}  # fmt: skip
MAMBA_EXPANSION = 2  # of the hidden size, in the inner width of Mamba layers
# Fields without effect unless another one is set
DEPENDENT = {
    "num_moe_experts": ("moe_",),
    "multi_latent_attention": (
        "q_lora_rank", "kv_lora_rank", "qk_head_dim", "qk_pos_emb_head_dim", "v_head_dim", "mscale", "beta_",
        "rotary_scaling_factor", "original_max_position_embeddings", "rope_type",
    ),
    "hybrid_override_pattern": ("mamba_",),
    "scale_factor": ("low_freq_factor", "high_freq_factor", "old_context_len"),
    "window_size": ("window_attn_skip_freq", "interleaved_attn_pattern"),
}  # fmt: skip
ROTARY = (
    "rotary_", "rope_", "scale_factor", "low_freq_factor", "high_freq_factor", "old_context_len", "no_rope_", "nope_",
    "seq_len_interpolation_factor", "yarn_",
)  # fmt: skip


def is_computed(name: str) -> bool:
    """Return whether a field can change what a model computes, or what parameters it has."""
    if name == ACTIVATION:
        return True
    return not (
        name in HARMLESS
        or name in HARMLESS_LATER
        or name.startswith(HARMLESS_BEGINNINGS)
        or name.endswith(HARMLESS_ENDINGS)
    )


def plain_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that can change what is computed, with values that can be compared, derived ones filled in."""
    found = {name: _plain(value) for name, value in fields.items() if is_computed(name)}
    heads, hidden = found.get("num_attention_heads"), found.get("hidden_size")
    derived = {
        "num_query_groups": heads,
        "kv_channels": hidden // heads if heads and hidden else None,
        "ffn_hidden_size": 4 * hidden if hidden else None,
    }
    if found.get("mamba_head_dim") and hidden:
        derived["mamba_num_heads"] = MAMBA_EXPANSION * hidden // found["mamba_head_dim"]
    for name, value in derived.items():
        if found.get(name) is None:
            found[name] = value
    if found.get("num_moe_experts") and found.get("moe_ffn_hidden_size") is None:
        found["moe_ffn_hidden_size"] = found["ffn_hidden_size"]
    return found


def other_fields(
    theirs: Mapping[str, Any], ours: Mapping[str, Any], names: Collection[str] | None = None
) -> dict[str, tuple[Any, Any]]:
    """Return the fields in which two models compute something else, with both values.

    Args:
        theirs, ours: fields as `plain_fields` returns them. One that is missing counts as not set.
        names: the fields to compare; by default all.
    """
    compared = names if names is not None else dict.fromkeys([*theirs, *ours])
    off = _without_effect(theirs, ours)
    return {
        name: (theirs.get(name), ours.get(name))
        for name in compared
        if is_computed(name) and not (off and name.startswith(off))
        and not _same(name, theirs.get(name), ours.get(name))
    }  # fmt: skip


def _plain(value: Any) -> Any:
    name = symbol_name(value)
    if name is not None:
        return name
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):  # a tuple or another object as fiddle writes it
        return [_plain(item) for item in value.get("_args_", ())] or value
    if isinstance(value, str):
        try:
            return float(value)  # YAML 1.1 reads 1e-5 as text
        except ValueError:
            return value
    return value


def _without_effect(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the beginnings of fields that have no effect in either model."""
    off: list[str] = []
    for switch, dependent in DEPENDENT.items():
        if not theirs.get(switch) and not ours.get(switch):
            off += dependent
    kinds = {side.get("position_embedding_type") for side in (theirs, ours)}
    if kinds and kinds <= {"learned_absolute", "none"}:
        off += ROTARY
    if "yarn" not in kinds:
        off.append("yarn_")
    switches = [side["rope_scaling"] for side in (theirs, ours) if "rope_scaling" in side]
    if switches and not any(switches):
        off.append("rope_scaling_factor")
    return tuple(off)


def _same(name: str, one: Any, other: Any) -> bool:
    if name == "vocab_size" and (one is None or other is None):  # it is the tokenizer's
        return True
    if name == ACTIVATION and "<lambda>" in (one, other):  # Nemotron-H has a function without a name
        return True
    if name == "moe_layer_freq":  # 1, or an entry for each layer
        one, other = (1 if isinstance(value, list) and set(value) == {1} else value for value in (one, other))
    neutral = NEUTRAL.get(name)
    values = [
        None if value is False or (neutral is not None and value == neutral) else value
        for value in (one, other)
    ]
    return bool(values[0] == values[1])
