"""Models described by a Hugging Face `config.json`, based on a NeMo recipe of the same family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nemolaunch.catalogue.lookup import ModelSpec, recipe
from nemolaunch.catalogue.yamlform import apply_form
from nemolaunch.errors import UsageError

# model_type -> recipe of the same family; the file overrides what differs
BASES = {
    "llama": "llama3_8b",
    "mistral": "mistral_7b",
    "mixtral": "mixtral_8x7b",
    "qwen2": "qwen2_7b",
    "qwen3": "qwen3_8b",
    "gemma": "gemma_2b",
}
LLAMA_WITH_SCALING = "llama31_8b"
FIELDS = {
    "num_hidden_layers": "num_layers",
    "hidden_size": "hidden_size",
    "num_attention_heads": "num_attention_heads",
    "num_key_value_heads": "num_query_groups",
    "head_dim": "kv_channels",
    "intermediate_size": "ffn_hidden_size",
    "vocab_size": "vocab_size",
    "rope_theta": "rotary_base",
    "rms_norm_eps": "layernorm_epsilon",
    "tie_word_embeddings": "share_embeddings_and_output_weights",
    "num_local_experts": "num_moe_experts",
    "num_experts_per_tok": "moe_router_topk",
}
TIED_BY_DEFAULT = ("gemma",)  # transformers' default of tie_word_embeddings is false for the others
SCALING = {
    "factor": "scale_factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_max_position_embeddings": "old_context_len",
}


def model_from_hf_config(config: Mapping[str, Any], source: str) -> ModelSpec:
    """Return the model that a `config.json` describes; `source` names it.

    Its sequence length is the smaller of the base recipe's and the file's `max_position_embeddings`.

    Raises:
        UsageError: the family is not one of `BASES`, or the values do not describe a valid model.
    """
    kind = config.get("model_type")
    if kind not in BASES:
        raise UsageError(
            f"--model-name hf: {source} has model_type {kind!r}; supported are {', '.join(BASES)}. "
            "Use the name of a recipe instead (`nemolaunch models`)"
        )
    scaling = config.get("rope_scaling") or {}
    base = recipe(LLAMA_WITH_SCALING if kind == "llama" and scaling else BASES[kind])
    form: dict[str, Any] = {
        ours: config[theirs] for theirs, ours in FIELDS.items() if config.get(theirs) is not None
    }
    form.setdefault("share_embeddings_and_output_weights", kind in TIED_BY_DEFAULT)
    form.setdefault("num_query_groups", form.get("num_attention_heads"))
    if kind == "mixtral":
        form["moe_ffn_hidden_size"] = form.get("ffn_hidden_size")
    if scaling:
        form |= _scaling(scaling, kind, source)
    form["seq_length"] = min(int(config.get("max_position_embeddings") or base.seq_length), base.seq_length)
    architecture, overrides, faults = apply_form({"base": base.name, **form}, base.architecture, base.name)
    if faults:
        raise UsageError(
            f"--model-name hf: config.json of {source} does not describe a valid model:\n  "
            + "\n  ".join(faults)
        )
    return ModelSpec(
        name=source.rstrip("/").rpartition("/")[2],
        recipe=base,
        architecture=architecture,
        overrides=overrides,
        source=f"config.json of {source}",
    )


def _scaling(scaling: Mapping[str, Any], kind: object, source: str) -> dict[str, Any]:
    if kind != "llama" or scaling.get("rope_type", scaling.get("type")) != "llama3":
        raise UsageError(
            f"--model-name hf: {source} has rope_scaling {dict(scaling)}, which no NeMo recipe supports"
        )
    return {ours: scaling[theirs] for theirs, ours in SCALING.items() if theirs in scaling}
