"""The language models of Gemma 4.

Sizes are those of Google's own definition of them: google-deepmind/gemma at b2dc124b6b1f,
gemma/gm/nn/gemma4/_gemma4.py.
The class's defaults are the rest: heads of 256 channels, and of 512 in layers without a window; 262144 tokens.
"""

from __future__ import annotations

from typing import Any

from nemolaunch.bridge.model_source import BRIDGE, ModelSource
from nemolaunch.catalogue.bridge_models import GEMMA4, GEMMA4_EXPERTS

# of megatron/bridge/recipes/gemma/h100/gemma4.py: layers in plain PyTorch
_PLAIN = {"transformer_impl": "local", "masked_softmax_fusion": False}


def _layers(count: int, every: int) -> list[str]:
    """Return the kinds of layers, of which each `every`-th attends to everything."""
    return ["sliding_attention" if layer % every else "full_attention" for layer in range(1, count + 1)]


def _model(layers: int, every: int, window: int, **values: Any) -> dict[str, Any]:
    return {
        "num_hidden_layers": layers,
        "layer_types": _layers(layers, every),
        "sliding_window": window,
        "final_logit_softcapping": 30.0,
        **values,
    }


# what the two large ones share: no second embedding, and values that are the keys in layers without a window
_LARGE = {"hidden_size_per_layer_input": 0, "attention_k_eq_v": True}

MODELS: dict[str, ModelSource] = {
    "gemma4_e2b": ModelSource(
        config="Gemma4TextConfig",
        values=_model(
            35,
            5,
            512,
            hidden_size=1536,
            intermediate_size=6144,
            num_key_value_heads=1,
            num_kv_shared_layers=20,
            use_double_wide_mlp=True,
        ),
        provider=GEMMA4,
        settings=_PLAIN,
    ),
    "gemma4_e4b": ModelSource(
        config="Gemma4TextConfig",
        values=_model(
            42,
            6,
            512,
            hidden_size=2560,
            intermediate_size=10240,
            num_key_value_heads=2,
            num_kv_shared_layers=18,
        ),
        provider=GEMMA4,
        settings=_PLAIN,
    ),
    "gemma4_31b": ModelSource(
        config="Gemma4TextConfig",
        values=_model(
            60,
            6,
            1024,
            hidden_size=5376,
            intermediate_size=21504,
            num_attention_heads=32,
            num_key_value_heads=16,
            num_global_key_value_heads=4,
            **_LARGE,
        ),
        provider=GEMMA4,
        settings=_PLAIN,
    ),
    "gemma4_26b_a4b": ModelSource(
        config="Gemma4TextConfig",
        values=_model(
            30,
            6,
            1024,
            hidden_size=2816,
            intermediate_size=2112,
            moe_intermediate_size=704,
            num_attention_heads=16,
            num_key_value_heads=8,
            num_global_key_value_heads=2,
            enable_moe_block=True,
            num_experts=128,
            top_k_experts=8,
            **_LARGE,
        ),
        provider=GEMMA4_EXPERTS,
        layers=f"{BRIDGE}.gemma.modeling_gemma4.gemma4_block_spec",
    ),
}
