"""Compare two configurations field by field, by meaning and not by spelling."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from nemolaunch.families.config_json import scaling_of

Fields = Mapping[str, Any]

BLOCKS = "heterogeneous_layers_config_encoded_json"
NONE_MEANS = {"hidden_activation": "gelu_pytorch_tanh", "n_group": 1, "topk_group": 1}


def differences(expected: Fields, got: Fields, skipped: Collection[str] = ()) -> tuple[int, list[str]]:
    """Return how many fields both have, and a line for each whose meaning differs."""
    names = [name for name in got if name in expected and name not in skipped]
    lines = []
    for name in names:
        before, after = meaning(name, expected), meaning(name, got)
        if before != after:
            lines.append(f"{name}: {before} became {after}")
    return len(names), lines


def meaning(name: str, fields: Fields) -> Any:
    """Return a field's effective value, with the default in place of None.

    Works for `config.json` and for NeMo's configuration.
    """
    value = fields[name]
    heads = fields.get("num_attention_heads")
    if value is None and name in ("num_key_value_heads", "num_query_groups"):
        return heads
    if name == "kv_channels" and fields.get("qk_head_dim"):
        return None  # multi-latent attention does not use it
    if value is None and name in ("head_dim", "kv_channels") and heads:
        return fields["hidden_size"] // heads
    if value is None and name in ("n_inner", "ffn_hidden_size"):
        return 4 * (fields.get("n_embd") or fields["hidden_size"])
    if name == BLOCKS and value:
        return json.loads(value)["block_configs"]  # the rest repeats the whole config.json
    if value is None and name in NONE_MEANS:
        return NONE_MEANS[name]
    if name == "rope_scaling" and isinstance(value, dict):
        scaling = scaling_of(value)
        return scaling and {"rope_type": scaling[0], **dict(sorted(scaling[1].items()))}
    if name == "sliding_window":
        return _window(value, fields)
    if name == "linear_attention_freq" and isinstance(value, int):
        return [int((layer + 1) % value != 0) for layer in range(fields["num_layers"])]
    return list(value) if isinstance(value, tuple) else value


def _window(value: int | None, fields: Fields) -> int | None:
    """Return the sliding window in effect; one as long as the longest sequence has no effect."""
    longest = fields.get("max_position_embeddings")
    unused = not fields.get("use_sliding_window", True) or (longest and value and value >= longest)
    return None if unused else value
