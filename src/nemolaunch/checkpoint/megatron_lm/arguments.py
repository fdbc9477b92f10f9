"""Megatron-LM's command line, as its checkpoints record it, in the terms of Megatron-Core's configuration, and back.

Most arguments have the names of the fields they set (megatron/training/argument_utils.py,
`core_transformer_config_from_args`); those that do not are here.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from nemolaunch.checkpoint.megatron import description
from nemolaunch.errors import NemolaunchError
from nemolaunch.facts.bridge_model import to_nemo
from nemolaunch.families.nemo_config import NemoConfig, symbol, symbol_name
from nemolaunch.trust.pickles import Opaque

# Argument -> the field that it sets
RENAMED = {
    "num_experts": "num_moe_experts",
    "norm_epsilon": "layernorm_epsilon",
    "apply_layernorm_1p": "layernorm_zero_centered_gamma",
    "padded_vocab_size": "vocab_size",
    "use_rope_scaling": "rope_scaling",
    "rope_scaling_factor": "rope_scaling_factor",
    "rotary_seq_len_interpolation_factor": "seq_len_interpolation_factor",
}
# Arguments that only multi-latent attention reads, and which have values without it, too
LATENT = {
    "beta_fast", "beta_slow", "kv_lora_rank", "mscale", "mscale_all_dim", "original_max_position_embeddings",
    "q_lora_rank", "qk_head_dim", "qk_pos_emb_head_dim", "rope_type", "rotary_scaling_factor", "v_head_dim",
}  # fmt: skip
LATENT_PROVIDER = "MLAModelProvider"  # Bridge's class of such models
# Arguments that a checkpoint of ours needs, besides those of the model: what `pretrain_gpt.py` compares or reads
DEFAULTS: dict[str, Any] = {
    "add_position_embedding": True,
    "ckpt_format": "torch_dist",
    "ckpt_fully_parallel_save": True,
    "consumed_valid_samples": 0,
    "skipped_train_samples": 0,
    "multi_latent_attention": False,
    "no_save_optim": False,
    "no_save_rng": True,
    "tokenizer_type": "HuggingFaceTokenizer",
    "use_dist_ckpt": True,
    "use_distributed_optimizer": True,
}
GATED = {"silu": "swiglu", "quick_gelu": "quick_geglu"}


def values_of(recorded: Any) -> dict[str, Any]:
    """Return the arguments that a checkpoint records, by name; those that are not plain values are left out.

    Raises:
        NemolaunchError: it records none.
    """
    found = vars(recorded) if isinstance(recorded, (Opaque, argparse.Namespace)) else None
    if not found or "num_layers" not in found:
        raise NemolaunchError(
            "it does not hold the arguments of Megatron-LM's command line, which describe the model"
        )
    return {name: value for name, value in found.items() if _is_plain(value)}


def nemo_config(args: Mapping[str, Any]) -> NemoConfig:
    """Return NeMo's configuration of the model that the arguments describe.

    Raises `NemolaunchError` if no model that nemolaunch converts is described so.
    """
    fields = model_fields(args)
    if args.get("multi_latent_attention"):
        return description.of_class(description.CLASSES[LATENT_PROVIDER], LATENT_PROVIDER, fields)
    return to_nemo("GPTModelProvider", fields)


def model_fields(args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of Megatron-Core's configuration that the arguments set.

    Raises:
        NemolaunchError: the model is of a kind that is not a plain GPT.
    """
    strange = [name for name in ("hybrid_layer_pattern", "hybrid_override_pattern", "spec") if args.get(name)]
    if strange:
        raise NemolaunchError(f"the model is not a plain GPT: {strange[0]} is {args[strange[0]]!r}")
    latent = bool(args.get("multi_latent_attention"))
    ignored = {"kv_channels"} if latent else LATENT  # a width that latent attention does not use
    fields = {name: value for name, value in args.items() if name not in ignored}
    for name, field in RENAMED.items():
        if args.get(name) is not None:
            fields[field] = args[name]
    if not args.get("group_query_attention"):
        fields["num_query_groups"] = args.get("num_attention_heads")
    fields["share_embeddings_and_output_weights"] = not args.get("untie_embeddings_and_output_weights")
    fields["gated_linear_unit"] = bool(args.get("swiglu") or args.get("quick_geglu"))
    fields["activation_func"] = symbol(_activation(args))
    if args.get("num_experts") is None:
        fields["num_moe_experts"] = None
    return fields


def _activation(args: Mapping[str, Any]) -> str:
    if args.get("swiglu"):
        return "torch.nn.functional.silu"
    if args.get("squared_relu"):
        return "megatron.core.activations.squared_relu"
    if args.get("quick_geglu"):
        return "megatron.core.activations.quick_gelu"
    return "torch.nn.functional.gelu"


def recorded(config: NemoConfig, **values: Any) -> argparse.Namespace:
    """Return the arguments of a model, with others, in the form that Megatron-LM saves."""
    fields = config.resolved
    plain = {name: value for name, value in fields.items() if _is_plain(value)}
    activation, gated = symbol_name(fields.get("activation_func")), bool(fields.get("gated_linear_unit"))
    own = {
        **{name: fields.get(field) for name, field in RENAMED.items() if field in fields},
        "group_query_attention": fields.get("num_query_groups")
        not in (None, fields.get("num_attention_heads")),
        "untie_embeddings_and_output_weights": not fields.get("share_embeddings_and_output_weights"),
        "swiglu": gated and activation == "silu",
        "quick_geglu": gated and activation == "quick_gelu",
        "squared_relu": activation == "squared_relu",
        "use_rope_scaling": fields.get("scale_factor") is not None,
        "rope_scaling_factor": fields.get("scale_factor") or 8.0,
        "max_position_embeddings": fields.get("seq_length"),
    }
    return argparse.Namespace(**{**DEFAULTS, **plain, **own, **values})


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))
