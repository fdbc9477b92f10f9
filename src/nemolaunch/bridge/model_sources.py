"""Where the models that only Megatron-Bridge has are described, without a hub.

Each is a configuration class of transformers, with the values of the published `config.json` that are not the class's
defaults. They are those of Bridge's recipes and of its earlier model classes, which had them written out
(NVIDIA-NeMo/Megatron-Bridge at the commits below, src/megatron/bridge/models).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nemolaunch.catalogue.bridge_models import GPT

_BRIDGE = "megatron.bridge.models"
_MLA = f"{_BRIDGE}.mla_provider.MLAModelProvider"


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Where one model is described.

    Attributes:
        config: transformers' configuration class.
        values: what the model has otherwise than that class's defaults.
        provider: the class of Bridge's configuration.
        last_stage: layers of the last stage of the catalogue's pipeline layout, which do not divide evenly.
    """

    config: str
    values: dict[str, Any] = field(default_factory=dict)
    provider: str = GPT
    last_stage: int | None = None


def _rope(base: float, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": base, **more}}


# glm/glm45_provider.py at 5f28ae824bc6: biases of queries, keys and values; half of each head is rotated
_GLM_45 = {
    "attention_bias": True,
    "head_dim": 128,
    "num_nextn_predict_layers": 1,
    **_rope(1e6, partial_rotary_factor=0.5),
}

MODELS: dict[str, ModelSource] = {
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
            **_rope(
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
        provider=_MLA,
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
            **_rope(50000.0),
        },
        provider=_MLA,
    ),
    # megatron/bridge/recipes/nemotronh/h100/nemotron_3_nano.py of Bridge 0.6.2, which names all sizes
    "nemotron_3_nano_30b_a3b": ModelSource(
        config="NemotronHConfig",
        values={
            "hybrid_override_pattern": "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME",
            "hidden_size": 2688,
            "intermediate_size": 1856,
            "num_attention_heads": 32,
            "num_key_value_heads": 2,
            "head_dim": 128,
            "mamba_num_heads": 64,
            "n_routed_experts": 128,
            "moe_intermediate_size": 1856,
            "moe_shared_expert_intermediate_size": 3712,
            "num_experts_per_tok": 6,
            "routed_scaling_factor": 2.5,
        },
        provider=f"{_BRIDGE}.hybrid.hybrid_provider.HybridModelProvider",
    ),
    # the defaults of both classes, but for the width of an expert, which is in Bridge's
    "olmoe_7b": ModelSource(
        config="OlmoeConfig",
        values={"intermediate_size": 1024},
        provider=f"{_BRIDGE}.olmoe.olmoe_provider.OlMoEModelProvider",
    ),
    # the class's defaults are this model's but for the base of its positions: Bridge's earlier class of it
    # (qwen/qwen_provider.py)
    "qwen3_next_80b_a3b": ModelSource(
        config="Qwen3NextConfig", values=_rope(1e7, partial_rotary_factor=0.25)
    ),
    # the language model of Qwen3.5: the class's defaults; the base is that of THUDM/slime at 10cefc3b91ba,
    # scripts/models/qwen3.5-35B-A3B.sh
    "qwen35_35b_a3b": ModelSource(
        config="Qwen3_5MoeTextConfig", values=_rope(1e7, partial_rotary_factor=0.25)
    ),
}
