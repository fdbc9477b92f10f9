"""Custom architectures in YAML: a base recipe and what differs from it."""

from __future__ import annotations

import dataclasses
import reprlib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemolaunch.catalogue.architecture import Architecture
from nemolaunch.catalogue.names import did_you_mean
from nemolaunch.errors import UsageError
from nemolaunch.families.absurd import absurd_size
from nemolaunch.system.yaml_faults import fault

_TYPES = typing.get_type_hints(Architecture)
_CHOICES = {
    "normalization": ("LayerNorm", "RMSNorm"),
    "position_embedding_type": ("rope", "learned_absolute", "none"),
    "moe_router_score_function": ("softmax", "sigmoid"),
}
_ABOUT = ("base", "name", "description")
# Determined by the base's code: how things are computed or laid out rather than what is computed.
FIXED = (
    "activation_func", "bias_activation_fusion", "rotary_interleaved", "kind", "post_layer_norms",
    "interleaved_attn_pattern",
    "multi_latent_attention", "apply_rope_fusion", "moe_grouped_gemm", "moe_token_dispatcher_type",
    "num_layers_in_first_pipeline_stage", "num_layers_in_last_pipeline_stage",
    "account_for_embedding_in_pipeline_split", "account_for_loss_in_pipeline_split",
)  # fmt: skip
# Fields that only exist if the base family has the part they describe, by the field that indicates it.
_PARTS = {
    "scale_factor": ("scale_factor", "low_freq_factor", "high_freq_factor", "old_context_len"),
    "rope_scaling": ("rope_scaling",),
    "rope_scaling_factor": ("rope_scaling_factor",),
    "num_moe_experts": ("num_moe_experts", "moe_router_topk", "moe_layer_freq", "moe_ffn_hidden_size",
                        "moe_shared_expert_intermediate_size", "moe_grouped_gemm",
                        "moe_token_dispatcher_type", "moe_router_enable_expert_bias",
                        "moe_router_score_function", "moe_router_pre_softmax"),
    "moe_latent_size": ("moe_latent_size",),
    "kv_lora_rank": ("multi_latent_attention", "q_lora_rank", "kv_lora_rank", "qk_head_dim",
                     "qk_pos_emb_head_dim", "v_head_dim"),
    "hybrid_override_pattern": ("hybrid_override_pattern", "mamba_state_dim", "mamba_head_dim",
                                "mamba_num_groups", "mamba_num_heads"),
    "linear_attention_freq": ("linear_attention_freq", "linear_conv_kernel_dim", "linear_key_head_dim",
                              "linear_value_head_dim", "linear_num_key_heads", "linear_num_value_heads",
                              "attention_output_gate", "moe_shared_expert_gate"),
    "num_groups_hyena": ("num_groups_hyena", "num_groups_hyena_medium", "num_groups_hyena_short"),
    "encoder_num_layers": ("encoder_num_layers",),
    "mtp_num_layers": ("mtp_num_layers",),
    "global_kv_channels": ("global_kv_channels", "num_global_query_groups"),
    "num_kv_shared_layers": ("num_kv_shared_layers", "use_double_wide_mlp"),
    "per_layer_embed_dim": ("per_layer_embed_dim", "per_layer_embed_vocab_size"),
    "attn_logit_softcapping": ("attn_logit_softcapping", "final_logit_softcapping"),
}  # fmt: skip
_PART_OF = {field: part for part, fields in _PARTS.items() for field in fields}


def read_form(path: Path) -> dict[str, Any]:
    """Read the keys and values of a YAML file.

    Raises:
        UsageError: it cannot be read, is not a YAML mapping, or contains a key twice.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
        form = yaml.safe_load(text)
    except OSError as error:
        raise UsageError(f"--model-name: cannot read {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"--model-name: {path} is not UTF-8 text.") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"--model-name: {path} is not valid YAML: {fault(error)}") from error
    if not isinstance(form, dict):
        raise UsageError(f"--model-name: {path} must consist of `key: value` lines, including `base:`.")
    keys = [key.value for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise UsageError(f"--model-name: {path} contains {key!r} twice.")
    return form


def _number(value: Any) -> Any:
    """Convert text such as `1e4`, which YAML 1.1 does not read as a number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _converted(value: Any, kind: Any) -> Any:
    """Convert `value` to the type of the annotation `kind`; raise TypeError if that is impossible."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        for option in typing.get_args(kind):
            try:
                return _converted(value, option)
            except TypeError:
                continue
        raise TypeError
    if kind is type(None) and value is None:
        return None
    if typing.get_origin(kind) is tuple and isinstance(value, list | tuple) and value:
        return tuple(_converted(item, typing.get_args(kind)[0]) for item in value)
    if kind is bool and isinstance(value, bool):
        return value
    if kind is str and isinstance(value, str):
        return value
    number = _number(value)
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise TypeError
    if kind is int and number == int(number):
        return int(number)
    if kind is float:
        return float(number)
    raise TypeError


def _kind_words(kind: Any) -> str:
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    options = typing.get_args(kind) if typing.get_origin(kind) in (types.UnionType, typing.Union) else (kind,)
    return " or ".join(words.get(option, "a list of numbers") for option in options)


def _out_of_range(field: str, value: Any) -> str | None:
    """Describe what is wrong with a value of the right type; None if nothing is."""
    absurd = absurd_size({field: value})
    if absurd:
        return absurd
    if field in _CHOICES and value not in _CHOICES[field]:
        return f"{field} is {value!r}; it must be one of {', '.join(_CHOICES[field])}"
    if field.endswith("_dropout"):
        return None if 0 <= value < 1 else f"{field} is {value}; it must be at least 0 and below 1"
    if field == "moe_layer_freq" and isinstance(value, tuple):
        return (
            None
            if set(value) <= {0, 1}
            else f"{field} is {list(value)}; a list must have one 0 or 1 per layer"
        )
    numbers = value if isinstance(value, tuple) else (value,)
    if any(isinstance(number, int | float) and not isinstance(number, bool) and not 0 < number < float("inf")
           for number in numbers) and field != "window_size":  # fmt: skip
        return f"{field} is {value}; it must be above 0"
    return None


def has_own_qk_layernorm(base: Architecture) -> bool:
    """Return whether the layers, those of Gemma 2 to 4 and Llama 4, decide if queries and keys are normalised."""
    return base.post_layer_norms or base.rope_scaling is not None


def _wrong_form(field: str, value: Any, base: Architecture) -> str | None:
    """Describe how a value of the right type is invalid for this base; None if it is valid.

    Only Gemma 3 has two rotary bases, for layers with and without a window, and its window is a single number.
    """
    is_gemma_3 = isinstance(base.rotary_base, tuple)
    pair = isinstance(value, tuple) and len(value) == 2
    single = not isinstance(value, tuple)
    required = field in _PART_OF or (field == "vocab_size" and base.has_preset_vocabulary)
    if required and value is None and getattr(base, field) is not None:
        return f"{field} is null; this base needs a value"
    if field == "rotary_base" and not (pair if is_gemma_3 else single):
        return (
            f"{field} is {value}; this base takes {'a list of two numbers' if is_gemma_3 else 'one number'}"
        )
    if field == "window_size" and value is not None and not (single if is_gemma_3 else pair):
        return f"{field} is {value}; this base takes {'one number' if is_gemma_3 else '[left, right]'}"
    if field == "qk_layernorm" and has_own_qk_layernorm(base):
        return f"{field} cannot be set: the layers of Gemma 2 to 4 and Llama 4 determine it"
    return None


def read_fields(
    form: Mapping[str, Any], base: Architecture, base_name: str
) -> tuple[dict[str, Any], list[str]]:
    """Return the converted architecture fields of a form, and all errors in individual fields."""
    fields: dict[str, Any] = {}
    faults: list[str] = []
    for key, value in form.items():
        if key in _ABOUT:
            continue
        if key not in _TYPES:
            faults.append(f"there is no field {key!r}.{did_you_mean(str(key), [*_TYPES, *_ABOUT])}")
        elif key in FIXED:
            faults.append(
                f"{key} cannot be set: it is not part of the architecture, or determined by the base"
            )
        elif key == "moe_layer_freq" and not isinstance(base.moe_layer_freq, tuple):
            faults.append(
                f"moe_layer_freq cannot be set: {base_name} ignores it and has experts in every layer"
            )
        elif key in _PART_OF and getattr(base, _PART_OF[key]) is None:
            faults.append(f"{key} cannot be set: the base {base_name} has no {_PART_OF[key]}")
        else:
            try:
                converted = _converted(value, _TYPES[key])
            except (TypeError, OverflowError, ValueError):
                faults.append(f"{key} is {reprlib.repr(value)}; it must be {_kind_words(_TYPES[key])}")
                continue
            fault = _out_of_range(key, converted) or _wrong_form(key, converted, base)
            if fault:
                faults.append(fault)
            else:
                fields[key] = converted
    return fields, faults


def implied_fields(stated: Mapping[str, Any], base: Architecture) -> tuple[dict[str, Any], list[str]]:
    """Return the fields that change as a consequence of the stated ones, and errors about missing fields.

    A new width or head count sets `kv_channels` to hidden_size // num_attention_heads. A new head count on a base
    without grouped queries keeps one key/value head per query head. A new depth extends a layer pattern that repeats
    a single letter. A preset vocabulary and a padding unit made for the base's tokenizer are replaced by the
    tokenizer's size and Megatron's 128 (except that Gemma 3, and Gemma 4 with experts or a second embedding, keep
    theirs). Everything else stays as in the base: rope scaling, tied embeddings, norms.
    """
    hidden = stated.get("hidden_size", base.hidden_size)
    heads = stated.get("num_attention_heads", base.num_attention_heads)
    layers = stated.get("num_layers", base.num_layers)
    faults = []
    fields: dict[str, Any] = {}
    if not base.has_preset_vocabulary:
        fields["vocab_size"] = None
    if base.make_vocab_size_divisible_by > 128:
        fields["make_vocab_size_divisible_by"] = 128
    if {"hidden_size", "num_attention_heads"} & stated.keys() and not base.multi_latent_attention:
        fields["kv_channels"] = hidden // heads
        if hidden % heads and "kv_channels" not in stated:
            faults.append(
                f"hidden_size {hidden} is not a multiple of num_attention_heads {heads}; change one of them "
                f"or set kv_channels, the width of a head"
            )
    if base.num_query_groups == base.num_attention_heads:
        fields["num_query_groups"] = heads
    if "hidden_size" in stated and "ffn_hidden_size" not in stated:
        faults.append("hidden_size is set without ffn_hidden_size; set both")
    if "hidden_size" in stated and base.num_moe_experts and "moe_ffn_hidden_size" not in stated:
        if base.moe_ffn_hidden_size == base.ffn_hidden_size:
            fields["moe_ffn_hidden_size"] = stated.get("ffn_hidden_size", base.ffn_hidden_size)
        else:
            faults.append("hidden_size is set without moe_ffn_hidden_size (the width of an expert); set both")
    pattern = base.hybrid_override_pattern
    if pattern and len(set(pattern)) == 1:
        fields["hybrid_override_pattern"] = pattern[0] * layers
    changes = {
        name: value for name, value in fields.items() if name not in stated and value != getattr(base, name)
    }
    return changes, faults


def contradictions(architecture: Architecture) -> list[str]:
    """Describe the contradictions between fields of an architecture."""
    a, faults = architecture, []
    if a.num_attention_heads % a.num_query_groups:
        groups = [n for n in range(1, a.num_attention_heads + 1) if a.num_attention_heads % n == 0]
        near = sorted(groups, key=lambda n: abs(n - a.num_query_groups))[:2]
        faults.append(
            f"num_attention_heads {a.num_attention_heads} is not a multiple of num_query_groups "
            f"{a.num_query_groups}; use num_query_groups {' or '.join(map(str, sorted(near)))}"
        )
    if a.position_embedding_type == "rope" and int(a.kv_channels * a.rotary_percent) % 2:
        faults.append(
            f"rotary embeddings need an even number of channels per head; kv_channels {a.kv_channels} "
            f"times rotary_percent {a.rotary_percent} is {int(a.kv_channels * a.rotary_percent)}"
        )
    if a.scale_factor is not None and a.position_embedding_type != "rope":
        faults.append(f"rope scaling needs position_embedding_type: rope, not {a.position_embedding_type}")
    if a.hybrid_override_pattern and len(a.hybrid_override_pattern) != a.num_layers:
        faults.append(
            f"hybrid_override_pattern has {len(a.hybrid_override_pattern)} letters for num_layers "
            f"{a.num_layers}; it needs one per layer"
        )
    if isinstance(a.moe_layer_freq, tuple) and len(a.moe_layer_freq) != a.num_layers:
        example = [0] + [1] * min(a.num_layers - 1, 3)
        faults.append(
            f"moe_layer_freq has {len(a.moe_layer_freq)} entries for num_layers {a.num_layers}; "
            f"use 1 for experts in every layer, or a list with one entry per layer, e.g. {example}"
        )
    if a.num_moe_experts and a.moe_router_topk > a.num_moe_experts:
        faults.append(f"moe_router_topk {a.moe_router_topk} exceeds num_moe_experts {a.num_moe_experts}")
    if a.moe_router_enable_expert_bias and a.moe_router_score_function != "sigmoid":
        faults.append("moe_router_enable_expert_bias needs moe_router_score_function: sigmoid")
    if (
        a.bias_activation_fusion
        and a.activation_func == "gelu"
        and not (a.gated_linear_unit or a.add_bias_linear)
    ):
        faults.append("without gated_linear_unit, the gelu of this base needs add_bias_linear: true")
    gpt_oss = a.activation_func == "quick_gelu"  # of Bridge, whose experts have biases
    if a.num_moe_experts and a.moe_grouped_gemm and a.add_bias_linear and not gpt_oss:
        faults.append("grouped experts do not support biases; add_bias_linear must be false")
    softmax_after = a.moe_router_score_function == "softmax" and not a.moe_router_pre_softmax
    if a.num_moe_experts and a.moe_router_topk == 1 and softmax_after:
        faults.append(
            "moe_router_topk 1 leaves a single expert for the softmax; set moe_router_pre_softmax: true"
        )
    return faults + _contradictions_of_gemma4(a)


def _contradictions_of_gemma4(a: Architecture) -> list[str]:
    faults, rows = [], a.per_layer_embed_vocab_size
    groups = a.num_global_query_groups
    if groups and a.num_attention_heads % groups:
        faults.append(
            f"num_attention_heads {a.num_attention_heads} is not a multiple of num_global_query_groups {groups}"
        )
    if rows and a.vocab_size and rows < a.vocab_size:
        faults.append(f"per_layer_embed_vocab_size {rows} is less than vocab_size {a.vocab_size}; set both")
    if a.num_kv_shared_layers and a.interleaved_attn_pattern:
        most = a.num_layers - sum(a.interleaved_attn_pattern)
        if a.num_kv_shared_layers > most:
            faults.append(
                f"num_kv_shared_layers {a.num_kv_shared_layers} leaves fewer layers with keys of their own than one of "
                f"each kind: of {a.num_layers} layers at most {max(0, most)} can share them"
            )
    return faults


def apply_form(
    form: Mapping[str, Any], base: Architecture, base_name: str
) -> tuple[Architecture, dict[str, Any], list[str]]:
    """Return the architecture that a form describes, the fields to set on the base's config, and all errors.

    If there are errors, the architecture is the base's.
    """
    stated, faults = read_fields(form, base, base_name)
    implied, missing = implied_fields(stated, base)
    faults += missing
    changes = {**stated, **implied}
    described = dataclasses.replace(base, **changes)
    faults += contradictions(described) if not missing else []
    if faults:
        return base, {}, faults
    overrides = {name: list(value) if isinstance(value, tuple) else value for name, value in changes.items()}
    return described, overrides, []
