"""`-M hf` and conversions read config.json alike, in the cases that users reported."""

from __future__ import annotations

from typing import Any

import pytest

from nemolaunch.arithmetic import parameters
from nemolaunch.catalogue import ModelSpec
from nemolaunch.catalogue.hf_config import model_from_hf_config
from nemolaunch.errors import UsageError

LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 512,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096, "rope_theta": 10000.0,
}  # fmt: skip
MISTRAL = {**LLAMA, "model_type": "mistral"}
SCALING = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 1024,
}  # fmt: skip
# google/gemma-3-4b's language model states only what differs from the class's defaults
GEMMA3: dict[str, Any] = {
    "model_type": "gemma3",
    "text_config": {
        "model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34,
        "sliding_window": 1024, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    },
}  # fmt: skip


def planned(config: dict[str, Any], **changes: Any) -> ModelSpec:
    """The model that `-M hf` plans."""
    return model_from_hf_config({**config, **changes}, "org/model")


def test_biases() -> None:
    """NVIDIA/NeMo-Aligner#175: biases as in config.json: transformers has them in 4 projections and 3 MLP layers."""
    with_biases = planned(LLAMA, attention_bias=True, mlp_bias=True)
    assert with_biases.overrides["add_bias_linear"] is True
    more = (
        parameters(with_biases.architecture, 512).total - parameters(planned(LLAMA).architecture, 512).total
    )
    assert more == 2 * (64 + 32 + 32 + 64 + 128 + 128 + 64)
    with pytest.raises(UsageError, match="attention_bias is True and mlp_bias False"):
        planned(LLAMA, attention_bias=True)


@pytest.mark.parametrize("activation", ["gelu", "gelu_pytorch_tanh", "relu", None])
def test_another_activation_is_refused(activation: str | None) -> None:
    """NVIDIA/NeMo-Aligner#175: NeMo's Llama has SiLU (llm.LlamaConfig), so others are refused by name."""
    with pytest.raises(UsageError, match="hidden_act"):
        planned(LLAMA, hidden_act=activation)


@pytest.mark.parametrize(
    ("stated", "expected"),
    [({"sliding_window": None}, None), ({"sliding_window": 1024}, (1023, 0)), ({}, None)],
)
def test_windows(stated: dict[str, Any], expected: tuple[int, int] | None) -> None:
    """axolotl-ai-cloud/axolotl#1214, predibase/lorax#128: null is no window; a number counts the query's own position
    in transformers and not in Transformer Engine; 4096, the default of MistralConfig, is no window for 4096 positions.
    """
    assert planned(MISTRAL, **stated).architecture.window_size == expected


def test_a_default_window_counts() -> None:
    """axolotl-ai-cloud/axolotl#1214: MistralConfig's default, in a file that has longer sequences and no such key."""
    assert planned(MISTRAL, max_position_embeddings=32768).architecture.window_size == (4095, 0)


@pytest.mark.parametrize("place", ["rope_parameters", "rope_scaling"])
def test_rope_of_transformers_5(place: str) -> None:
    """vllm-project/speculators#649, huggingface/trl#6961: rope_theta and the scaling, wherever the file has them."""
    without = {name: value for name, value in LLAMA.items() if name != "rope_theta"}
    model = planned(without, **{place: {**SCALING, "rope_theta": 50000.0}})
    assert model.architecture.rotary_base == 50000.0
    assert model.architecture.scale_factor == 8.0
    assert model.architecture.old_context_len == 1024
    assert model.recipe.config_class.startswith(("Llama31", "Llama32"))
    plain = planned(without, **{place: {"rope_type": "default", "rope_theta": 50000.0}})
    assert plain.architecture.rotary_base == 50000.0
    assert plain.architecture.scale_factor is None


def test_gemma_3_nested() -> None:
    """sgl-project/sglang#26013, Blaizzy/mlx-vlm#1709: factor 8 for full attention, and a base for each type."""
    old = planned(GEMMA3)
    rope = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    }
    text = {name: value for name, value in GEMMA3["text_config"].items() if name != "rope_scaling"}
    new = planned({"model_type": "gemma3", "text_config": {**text, "rope_parameters": rope}})
    for model in (old, new):
        assert model.architecture.rotary_base == (10000.0, 1000000.0)
        assert model.architecture.rope_scaling_factor == 8.0
        assert (model.architecture.num_attention_heads, model.architecture.kv_channels) == (8, 256)
    with pytest.raises(UsageError, match="sliding_attention"):
        planned(
            {
                "model_type": "gemma3",
                "text_config": {
                    **text,
                    "rope_parameters": {**rope, "sliding_attention": {"rope_type": "linear", "factor": 2.0}},
                },
            }
        )


def test_partial_rotation_of_a_family_that_rotates_all() -> None:
    """vllm-project/speculators#649: `partial_rotary_factor` in either place is refused by name, not skipped."""
    for stated in (
        {"partial_rotary_factor": 0.5},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}},
    ):
        with pytest.raises(UsageError, match="partial_rotary_factor"):
            planned(LLAMA, **stated)
