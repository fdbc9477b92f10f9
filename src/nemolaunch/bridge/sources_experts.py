"""Families with experts, and one without, that only Megatron-Bridge has."""

from __future__ import annotations

from nemolaunch.bridge.model_source import BRIDGE, MLA, ModelSource, rope
from nemolaunch.families.bridge_classes import BLOCK

_SARVAM = f"{BRIDGE}.sarvam.sarvam_provider"

MODELS: dict[str, ModelSource] = {
    # the class's defaults are ERNIE-4.5-21B-A3B's
    "ernie45_21b_a3b": ModelSource(config="Ernie4_5_MoeConfig"),
    # The published configuration, which ollama's tests repeat (x/models/exaone4); the scaling of positions is that of
    # the 32B model in NVIDIA/TensorRT-LLM, tests/unittest/_torch/modeling/test_modeling_exaone4.py
    "exaone4_1p2b": ModelSource(
        config="Exaone4Config",
        values={
            "hidden_size": 2048,
            "intermediate_size": 4096,
            "num_hidden_layers": 30,
            "num_key_value_heads": 8,
            "sliding_window": None,
            "layer_types": ["full_attention"] * 30,
            "tie_word_embeddings": True,
            **rope(
                1e6,
                rope_type="llama3",
                factor=16.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=8192,
            ),
        },
    ),
    # NVIDIA/TensorRT-LLM, tests/unittest/_torch/modeling/test_modeling_exaone_moe.py; 48 layers: its report,
    # arXiv 2601.01739
    "k_exaone_236b_a23b": ModelSource(
        config="ExaoneMoeConfig",
        values={
            "vocab_size": 153600,
            "hidden_size": 6144,
            "intermediate_size": 18432,
            "num_hidden_layers": 48,
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "moe_intermediate_size": 2048,
            "num_experts": 128,
            "sliding_window": 128,
            **rope(1e6),
        },
        provider=f"{BRIDGE}.exaone.exaone_moe.exaone_moe_provider.ExaoneMoeModelProvider",
        layers=BLOCK,
    ),
    # the class's defaults, with the base of THUDM/slime at 624b824a898a, scripts/models/glm4.7-30B-A3B.sh
    "glm47_flash": ModelSource(
        config="Glm4MoeLiteConfig",
        values={"num_nextn_predict_layers": 1, **rope(1e6)},
        provider=MLA,
    ),
    # the class's defaults are Hy3-preview's
    "hy3_295b_a21b": ModelSource(config="HYV3Config", values={"first_k_dense_replace": 1}),
    # Bridge's class is Ling-mini-2.0's but for the two values: inclusionAI/Ling-V2 at af8837e677a1,
    # examples/pretrain/run_pretrain_4k.sh
    "ling_mini_2": ModelSource(
        config="BailingMoeV2Config",
        module=f"{BRIDGE}.bailing.configuration_bailing_moe_v2",
        values={
            "routed_scaling_factor": 2.5,
            "partial_rotary_factor": 0.5,
            "num_nextn_predict_layers": None,
        },
    ),
    # THUDM/slime at 624b824a898a, scripts/models/mimo-7B-rl.sh
    "mimo_7b": ModelSource(
        config="MiMoConfig",
        module=None,
        values={
            "hidden_act": "silu",
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-5,
            "initializer_range": 0.02,
            "attention_dropout": 0.0,
            "vocab_size": 151680,
            "num_nextn_predict_layers": 1,
            "tie_word_embeddings": False,
            "rope_theta": 640000.0,
        },
    ),
    # Bridge's classes are the two published models
    "sarvam_30b": ModelSource(
        config="SarvamMoEConfig", provider=f"{_SARVAM}.SarvamMoEModelProvider", layers=BLOCK, whole=True
    ),
    "sarvam_105b": ModelSource(
        config="SarvamMLAConfig", provider=f"{_SARVAM}.SarvamMLAModelProvider", layers=BLOCK, whole=True
    ),
}
