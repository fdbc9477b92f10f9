"""Small models of the families that only Megatron-Bridge trains, as transformers makes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

COMMON: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "num_experts_per_tok": 2,
    "initializer_range": 0.1,
}
MIXED: dict[str, Any] = {
    "num_hidden_layers": 3,
    "intermediate_size": 96,
    "moe_intermediate_size": 32,
    "n_routed_experts": 8,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "routed_scaling_factor": 2.0,
}
# Name -> class of transformers, and its values
SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "glm45": ("Glm4MoeConfig", {**MIXED, "head_dim": 16, "attention_bias": True, "use_qk_norm": True}),
    "moonlight": (
        "DeepseekV3Config",
        {
            **MIXED,
            "num_key_value_heads": 4,
            "n_shared_experts": 2,
            "q_lora_rank": None,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 16,
            "qk_rope_head_dim": 8,
            "v_head_dim": 16,
            "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0},
        },
    ),
    "minimax": (
        "MiniMaxM2Config",
        {
            "num_hidden_layers": 2,
            "intermediate_size": 32,
            "head_dim": 16,
            "rotary_dim": 8,
            "num_local_experts": 8,
            "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "partial_rotary_factor": 0.5},
        },
    ),
    "nemotron 3": (
        "NemotronHConfig",
        {
            "hybrid_override_pattern": "ME*-M",
            "head_dim": 16,
            "intermediate_size": 96,
            "mamba_num_heads": 8,
            "mamba_head_dim": 16,
            "ssm_state_size": 16,
            "n_groups": 2,
            "chunk_size": 16,
            "n_routed_experts": 8,
            "moe_intermediate_size": 32,
            "moe_shared_expert_intermediate_size": 48,
            "use_mamba_kernels": False,
        },
    ),
    "qwen3 next": (
        "Qwen3NextConfig",
        {
            "num_hidden_layers": 4,
            "intermediate_size": 96,
            "head_dim": 16,
            "num_experts": 8,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 32,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
        },
    ),
}


def write(name: str, folder: Path) -> None:
    """Write a small model with random weights."""
    import torch
    import transformers

    kind, values = SMALL[name]
    config = getattr(transformers, kind)(**{**COMMON, **values})
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_config(config).float()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.dim() == 1 and "A_log" not in key:
                parameter.add_(0.1 * torch.randn(parameter.shape))
    model.save_pretrained(folder)


def differences(folders: dict[str, str]) -> dict[str, float | str]:
    """Write each model, and compare the logits of Bridge's with transformers' own."""
    from bridge.autobridge_job import judge

    for name, folder in folders.items():
        write(name, Path(folder) / "source")
    return dict(zip(folders, judge(list(folders.values())), strict=True))
