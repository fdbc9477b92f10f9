"""The language models of Qwen3.5.

Sizes of the dense models are those of THUDM/slime at 624b824a898a (scripts/models/qwen3.5-*.sh); the numbers of their
heads of values are those of published `config.json` files (ollama and others repeat them in tests), like 122B-A10B.
397B-A17B is in Megatron-Bridge's tests (tests/unit_tests/models/qwen/test_qwen35_bridge.py), with the width of the
shared expert as in its `config.json`.
"""

from __future__ import annotations

from typing import Any

from nemolaunch.bridge.model_source import ModelSource, rope

_ROPE = rope(1e7, partial_rotary_factor=0.25)


def _dense(**values: Any) -> ModelSource:
    return ModelSource(config="Qwen3_5TextConfig", values={**_ROPE, **values})


def _experts(**values: Any) -> ModelSource:
    return ModelSource(
        config="Qwen3_5MoeTextConfig", values={**_ROPE, "linear_num_value_heads": 64, **values}
    )


MODELS: dict[str, ModelSource] = {
    "qwen35_800m": _dense(
        num_hidden_layers=24,
        hidden_size=1024,
        intermediate_size=3584,
        num_attention_heads=8,
        num_key_value_heads=2,
        linear_num_value_heads=16,
        tie_word_embeddings=True,
    ),
    "qwen35_4b": _dense(hidden_size=2560, intermediate_size=9216, tie_word_embeddings=True),
    # the class's defaults
    "qwen35_9b": _dense(),
    "qwen35_27b": _dense(
        num_hidden_layers=64,
        hidden_size=5120,
        intermediate_size=17408,
        num_attention_heads=24,
        linear_num_value_heads=48,
    ),
    # the class's defaults
    "qwen35_35b_a3b": ModelSource(config="Qwen3_5MoeTextConfig", values=_ROPE),
    "qwen35_122b_a10b": _experts(
        num_hidden_layers=48,
        hidden_size=3072,
        num_attention_heads=32,
        moe_intermediate_size=1024,
        shared_expert_intermediate_size=1024,
    ),
    "qwen35_397b_a17b": _experts(
        num_hidden_layers=60,
        hidden_size=4096,
        num_attention_heads=32,
        moe_intermediate_size=1024,
        shared_expert_intermediate_size=1024,
        num_experts=512,
        num_experts_per_tok=10,
    ),
}
