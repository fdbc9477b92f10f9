"""Where the models that only Megatron-Bridge has are described, without a hub.

Each is a configuration class of transformers, with the values of the published `config.json` that are not the class's
defaults. They are those of Bridge's recipes and of its earlier model classes, which had them written out
(NVIDIA-NeMo/Megatron-Bridge at the commits below, src/megatron/bridge/models).
"""

from __future__ import annotations

from nemolaunch.bridge import sources_experts, sources_gemma4, sources_nemotron3, sources_qwen35
from nemolaunch.bridge.model_source import BRIDGE, MLA, ModelSource, rope

# glm/glm45_provider.py at 5f28ae824bc6: biases of queries, keys and values; half of each head is rotated
_GLM_45 = {
    "attention_bias": True,
    "head_dim": 128,
    "num_nextn_predict_layers": 1,
    **rope(1e6, partial_rotary_factor=0.5),
}

_MODELS: dict[str, ModelSource] = {
    "glm45": ModelSource(
        config="Glm4MoeConfig",
        values={
            **_GLM_45,
            "hidden_size": 5120,
            "intermediate_size": 12288,
            "moe_intermediate_size": 1536,
            "num_hidden_layers": 92,
            "n_routed_experts": 160,
            "routed_scaling_factor": 2.5,
            "first_k_dense_replace": 3,
            "use_qk_norm": True,
        },
        last_stage=8,
    ),
    "glm45_air": ModelSource(config="Glm4MoeConfig", values=_GLM_45, last_stage=10),
    # the class's defaults are gpt-oss-120b's
    "gpt_oss_120b": ModelSource(config="GptOssConfig"),
    "gpt_oss_20b": ModelSource(
        config="GptOssConfig", values={"num_hidden_layers": 24, "num_local_experts": 32}
    ),
    # kimi/kimi_provider.py at 1e59114075c8
    "kimi_k2": ModelSource(
        config="DeepseekV3Config",
        values={
            "num_attention_heads": 64,
            "num_key_value_heads": 64,
            "n_routed_experts": 384,
            "routed_scaling_factor": 2.827,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 1,
            "vocab_size": 163840,
            **rope(
                50000.0,
                rope_type="yarn",
                factor=32.0,
                beta_fast=1.0,
                beta_slow=1.0,
                mscale=1.0,
                mscale_all_dim=1.0,
                original_max_position_embeddings=4096,
            ),
        },
        provider=MLA,
        last_stage=1,
    ),
    # the class's defaults are MiniMax-M2's but for this one: docs of transformers, and Bridge's translation of it
    "minimax_m2": ModelSource(config="MiniMaxM2Config", values={"rotary_dim": 64}, last_stage=6),
    # deepseek/deepseek_provider.py at 066adea0f066
    "moonlight_16b": ModelSource(
        config="DeepseekV3Config",
        values={
            "hidden_size": 2048,
            "intermediate_size": 11264,
            "moe_intermediate_size": 1408,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "n_shared_experts": 2,
            "n_routed_experts": 64,
            "num_experts_per_tok": 6,
            "routed_scaling_factor": 2.446,
            "q_lora_rank": None,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 1,
            "vocab_size": 163840,
            "rms_norm_eps": 1e-5,
            **rope(50000.0),
        },
        provider=MLA,
    ),
    # the defaults of both classes, but for the width of an expert, which is in Bridge's
    "olmoe_7b": ModelSource(
        config="OlmoeConfig",
        values={"intermediate_size": 1024},
        provider=f"{BRIDGE}.olmoe.olmoe_provider.OlMoEModelProvider",
    ),
    # the class's defaults are this model's but for the base of its positions: Bridge's earlier class of it
    # (qwen/qwen_provider.py)
    "qwen3_next_80b_a3b": ModelSource(config="Qwen3NextConfig", values=rope(1e7, partial_rotary_factor=0.25)),
    **sources_experts.MODELS,
    **sources_gemma4.MODELS,
    **sources_nemotron3.MODELS,
    **sources_qwen35.MODELS,
}
MODELS = dict(sorted(_MODELS.items()))
