"""Nemotron 3, hybrids of Mamba-2, attention and experts, without the layers that predict further tokens."""

from __future__ import annotations

from typing import Any

from nemolaunch.bridge.model_source import HYBRID, ModelSource


def _hybrid(**values: Any) -> ModelSource:
    return ModelSource(config="NemotronHConfig", values=values, provider=HYBRID)


# What Super and Ultra share: experts in a narrower space than the residual stream (NVIDIA's latent MoE)
_LATENT: dict[str, Any] = {
    "num_key_value_heads": 2,
    "head_dim": 128,
    "n_routed_experts": 512,
    "num_experts_per_tok": 22,
    "routed_scaling_factor": 5.0,
    "moe_shared_expert_overlap": False,
}

MODELS: dict[str, ModelSource] = {
    # megatron/bridge/recipes/nemotronh/h100/nemotron_3_nano.py of Bridge 0.6.2, which names all sizes
    "nemotron_3_nano_30b_a3b": _hybrid(
        hybrid_override_pattern="MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME",
        hidden_size=2688,
        intermediate_size=1856,
        num_attention_heads=32,
        num_key_value_heads=2,
        head_dim=128,
        mamba_num_heads=64,
        n_routed_experts=128,
        moe_intermediate_size=1856,
        moe_shared_expert_intermediate_size=3712,
        num_experts_per_tok=6,
        routed_scaling_factor=2.5,
    ),
    # nemotron_3_nano_4b.py beside it, likewise
    "nemotron_3_nano_4b": _hybrid(
        hybrid_override_pattern="M-M-M-MM-M-M*-M-M*-M-M-M*-M-M-MM*-MMM-M-M-",
        hidden_size=3136,
        intermediate_size=12544,
        num_attention_heads=40,
        num_key_value_heads=8,
        head_dim=128,
        mamba_num_heads=96,
        mamba_head_dim=80,
        chunk_size=256,
    ),
    # NVIDIA-NeMo/Megatron-Bridge at 067f987df03b, tests/unit_tests/models/nemotronh/test_nemotron_h_bridge.py; heads
    # and pattern are those of its `config.json`, which tenstorrent/tt-forge-models repeats
    "nemotron_3_super_120b_a12b": _hybrid(
        **_LATENT,
        hybrid_override_pattern="MEMEMEM*EMEMEMEM*EMEMEMEM*EMEMEMEMEM*EMEMEMEMEM*EMEMEMEMEM*EMEMEMEMEM*EMEMEMEM*EMEMEMEME",
        hidden_size=4096,
        intermediate_size=21504,
        num_attention_heads=32,
        mamba_num_heads=128,
        moe_latent_size=1024,
        moe_intermediate_size=2688,
        moe_shared_expert_intermediate_size=5376,
        initializer_range=0.014,
    ),
    # NVIDIA's scripts of its training with Megatron-LM, whose README compares Nano, Super and Ultra
    "nemotron_3_ultra_550b_a55b": _hybrid(
        **_LATENT,
        hybrid_override_pattern=(
            "MEMEMEM*EMEMEM*EMEMEMEM*EMEMEMEM*EMEMEM*EMEMEMEM*EMEMEMEM*EMEMEM*EMEMEMEM*EMEMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME"
        ),
        hidden_size=8192,
        intermediate_size=5120,
        num_attention_heads=64,
        mamba_num_heads=256,
        moe_latent_size=2048,
        moe_intermediate_size=5120,
        moe_shared_expert_intermediate_size=10240,
        initializer_range=0.0099,
    ),
}
