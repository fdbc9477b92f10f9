"""Whether two Hugging Face configurations describe the same model."""

from __future__ import annotations

from typing import Any

# What decides shapes and arithmetic. Token ids, dropout, cache and library versions do not.
FIELDS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "vocab_size", "max_position_embeddings", "tie_word_embeddings", "rms_norm_eps",
    "layer_norm_eps", "norm_epsilon", "norm_eps", "rope_theta", "rope_scaling", "partial_rotary_factor",
    "attention_bias", "mlp_bias", "use_bias", "hidden_act", "hidden_activation", "num_local_experts",
    "num_experts", "num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob", "query_pre_attn_scalar",
    "final_logit_softcapping", "attn_logit_softcapping",
)  # fmt: skip


def disagreements(expected: dict[str, Any], got: dict[str, Any]) -> list[str]:
    """One line per field whose value changed; fields that one of them lacks are not compared."""
    lines = []
    for field in FIELDS:
        if field in expected and field in got:
            before, after = _plain(field, expected), _plain(field, got)
            if before != after:
                lines.append(f"{field}: {before} became {after}")
    before, after = _window(expected), _window(got)
    if before != after:
        lines.append(f"sliding_window: {before} became {after}")
    return lines


def _plain(field: str, config: dict[str, Any]) -> Any:
    value = config[field]
    if field == "head_dim" and value is None:
        return config["hidden_size"] // config["num_attention_heads"]
    if field == "num_key_value_heads" and value is None:
        return config["num_attention_heads"]
    if field == "rope_scaling" and isinstance(value, dict):
        kind = value.get("rope_type") or value.get("type")
        rest = {key: item for key, item in value.items() if key not in ("type", "rope_type", "rope_theta")}
        return None if kind in (None, "default") else {"rope_type": kind, **dict(sorted(rest.items()))}
    return value


def _window(config: dict[str, Any]) -> int | None:
    """The sliding window in effect: one as long as the longest sequence has none."""
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    longest = config.get("max_position_embeddings")
    return None if window is None or (longest and window >= longest) else int(window)
