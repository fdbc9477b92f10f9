"""One small random model of every family that converts, and of what makes some models of a family special."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemo2.small_models import write_model, write_tokenizer

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8,  # shorter than the prompt
}
YARN = {
    "type": "yarn",
    "factor": 40,
    "original_max_position_embeddings": 64,
    "beta_fast": 32,
    "beta_slow": 1,
    "mscale": 0.707,
    "mscale_all_dim": 0.707,
}
LATENT = {
    "num_hidden_layers": 3,
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "rope_scaling": YARN,
}


@dataclass(frozen=True)
class Small:
    """A small model.

    Attributes:
        kind: transformers' `model_type`.
        model_class: NeMo's class.
        changes: to the configuration.
        added: to `config.json` afterwards: what published ones have and transformers' class lacks.
        imported: NeMo's own importer takes the model as it is, on a CPU.
        tables: NeMo's own tables and transforms fit it.
        computes: the CPU's layers can run the NeMo model.
        nemo_forgets: ends of the names of tensors that NeMo's own exporter leaves at random values.
        dtype: of the weights.
    """

    kind: str
    model_class: str
    changes: dict[str, Any] = field(default_factory=dict)
    added: dict[str, Any] = field(default_factory=dict)
    imported: bool = True
    tables: bool = True
    computes: bool = True
    nemo_forgets: tuple[str, ...] = ()
    dtype: str = "float32"

    def write(self, folder: Path) -> None:
        """Make the model as a Hugging Face folder."""
        if self.kind in SYNTHETIC:
            _write_synthetic(folder, self)
        else:
            write_model(folder, self.kind, self.dtype, **self.changes)
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **self.added}, indent=2))


# Of these transformers has no class; names and shapes come from the family's table, the values are random.
SYNTHETIC: dict[str, dict[str, Any]] = {
    "baichuan": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "rms_norm_eps": 1e-6,
        "model_max_length": 256,
    },
    "chatglm": {
        "hidden_size": 64,
        "ffn_hidden_size": 128,
        "num_layers": 2,
        "num_attention_heads": 4,
        "multi_query_attention": True,
        "multi_query_group_num": 2,
        "kv_channels": 16,
        "seq_length": 256,
        "layernorm_epsilon": 1e-5,
        "rmsnorm": True,
        "add_bias_linear": False,
        "add_qkv_bias": True,
        "post_layer_norm": True,
        "apply_residual_connection_post_layernorm": False,
    },
    "nemotron-nas": {
        "hidden_size": 64,
        "intermediate_size": None,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": None,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "rope_scaling": LLAMA3,
        "tie_word_embeddings": False,
        "block_configs": [
            {"attention": {"n_heads_in_group": group, "no_op": group is None}, "ffn": {"ffn_mult": mult}}
            for group, mult in ((2, 2.0), (None, 4.0), (2, 8.0), (2, 2.0))
        ],
    },
    "nemotron_h": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "hybrid_override_pattern": "M-*M",
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "mamba_num_heads": 8,
        "mamba_head_dim": 16,
        "ssm_state_size": 16,
        "n_groups": 2,
        "max_position_embeddings": 256,
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": False,
    },
}


def _write_synthetic(folder: Path, model: Small) -> None:
    import torch
    from safetensors.torch import save_file

    from nemolaunch.checkpoint.convert.mapping import export_map, sizes_of, transform
    from nemolaunch.checkpoint.storage.tensors import TensorInfo
    from nemolaunch.families.param_shapes import parameters
    from nemolaunch.families.registry import FAMILIES

    rows = write_tokenizer(folder)
    family = FAMILIES[model.kind]
    vocabulary = "padded_vocab_size" if model.kind == "chatglm" else "vocab_size"
    config = {"model_type": model.kind, vocabulary: rows, "torch_dtype": model.dtype, **SYNTHETIC[model.kind]}
    sizes = sizes_of(family, family.to_nemo(config).resolved)
    shapes = parameters(sizes.config, rows)
    mapped = export_map(family, sizes, {n: TensorInfo(model.dtype, s) for n, s in shapes.items()}, rows)
    torch.manual_seed(5)
    tensors: dict[str, torch.Tensor] = {}
    for group in mapped.groups:
        randoms = [torch.randn(shapes[name], dtype=getattr(torch, model.dtype)) for name in group.nemo]
        tensors.update(zip(group.hf, transform(group, randoms, sizes, to_nemo=False), strict=True))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))


ZOO: dict[str, Small] = {
    "llama": Small("llama", "LlamaModel"),
    "llama bf16": Small("llama", "LlamaModel", dtype="bfloat16"),
    "llama 3.2": Small("llama", "LlamaModel", {"tie_word_embeddings": True, "rope_scaling": LLAMA3}),
    "llama linear rope": Small(
        "llama", "LlamaModel", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}
    ),
    "llama biases": Small(
        "llama", "LlamaModel", {"attention_bias": True, "mlp_bias": True}, imported=False, tables=False
    ),
    "more rows than tokens": Small("llama", "LlamaModel", {"vocab_size": 500}),
    "llama nemotron": Small("llama", "LlamaNemotronModel", {"rope_scaling": LLAMA3}),
    "llama nemotron blocks": Small("nemotron-nas", "LlamaNemotronModel", imported=False, computes=False),
    "llama 4": Small(
        "llama4_text",
        "LlamaModel",
        {
            "num_hidden_layers": 4,
            "head_dim": 16,
            "intermediate_size": 32,
            "intermediate_size_mlp": 64,
            "num_local_experts": 4,
            "interleave_moe_layer_step": 2,
            "moe_layers": None,
            "attention_chunk_size": 64,
        },
        imported=False,
        nemo_forgets=("feed_forward.down_proj.weight",),
    ),
    "llama 4, scaled rope": Small(
        "llama4_text",
        "LlamaModel",
        {
            "head_dim": 16,
            "intermediate_size": 32,
            "num_local_experts": 4,
            "use_qk_norm": False,
            "rope_scaling": {**LLAMA3, "original_max_position_embeddings": 8192},
        },
        imported=False,
        computes=False,
    ),
    "mistral": Small("mistral", "MistralModel", {"sliding_window": 5, "head_dim": 16}),
    "mixtral": Small("mixtral", "MixtralModel", {"num_local_experts": 8}),
    "qwen2": Small("qwen2", "Qwen2Model"),
    "qwen2 tied": Small("qwen2", "Qwen2Model", {"tie_word_embeddings": True}, dtype="bfloat16"),
    "qwen3": Small("qwen3", "Qwen3Model", {"head_dim": 128, "tie_word_embeddings": True}),
    "qwen3 narrow heads": Small("qwen3", "Qwen3Model", {"head_dim": 32}, imported=False),
    "qwen3 moe": Small(
        "qwen3_moe",
        "Qwen3Model",
        {
            "head_dim": 128,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 32,
            "norm_topk_prob": True,
        },
    ),
    "qwen3 moe, probabilities not normalised": Small(
        "qwen3_moe",
        "Qwen3Model",
        {"head_dim": 32, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
        imported=False,
    ),
    "gemma": Small("gemma", "GemmaModel", {"head_dim": 256}),
    "gemma 2": Small(
        "gemma2",
        "Gemma2Model",
        {"head_dim": 32, "query_pre_attn_scalar": 24, "rms_norm_eps": 1e-5},
        imported=False,
    ),
    "gemma 3": Small(
        "gemma3_text",
        "Gemma3Model",
        {
            "head_dim": 32,
            "num_hidden_layers": 6,
            "sliding_window": 5,
            "query_pre_attn_scalar": 24,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            "rms_norm_eps": 1e-5,
        },
        imported=False,
    ),
    "phi 3": Small("phi3", "Phi3Model", {"num_key_value_heads": 4}),
    "phi 3, fewer groups and a window": Small(
        "phi3", "Phi3Model", {"num_key_value_heads": 2, "sliding_window": 9}, imported=False
    ),
    "starcoder": Small("gpt_bigcode", "StarcoderModel", {"intermediate_size": 256, "num_key_value_heads": 1}),
    "starcoder, all heads": Small("gpt_bigcode", "StarcoderModel", {"multi_query": False}, imported=False),
    "starcoder 2": Small("starcoder2", "Starcoder2Model", {"sliding_window": 9}),
    "nemotron": Small("nemotron", "NemotronModel"),
    "nemotron h": Small("nemotron_h", "MambaModel", imported=False, computes=False),
    "deepseek v2": Small(
        "deepseek_v2",
        "DeepSeekModel",
        {**LATENT, "q_lora_rank": 24, "n_group": 2, "topk_group": 1, "topk_method": "group_limited_greedy"},
        {"scoring_func": "softmax"},
        imported=False,
        computes=False,
        dtype="bfloat16",
    ),
    "deepseek v2 lite": Small(
        "deepseek_v2",
        "DeepSeekModel",
        {**LATENT, "q_lora_rank": None},
        {"scoring_func": "softmax", "n_group": 1, "topk_group": 1},
        imported=False,
        computes=False,
        dtype="bfloat16",
    ),
    "deepseek v3": Small(
        "deepseek_v3",
        "DeepSeekModel",
        {**LATENT, "q_lora_rank": 24, "n_group": 2, "topk_group": 1},
        {"scoring_func": "sigmoid", "topk_method": "noaux_tc", "num_nextn_predict_layers": 1},
        imported=False,
        computes=False,
        dtype="bfloat16",
    ),
    "gpt oss": Small(
        "gpt_oss",
        "GPTOSSModel",
        {
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "head_dim": 16,
            "intermediate_size": 48,
            "sliding_window": 5,
        },
        imported=False,
        computes=False,
        dtype="bfloat16",
    ),
    "baichuan": Small("baichuan", "Baichuan2Model", imported=False, computes=False),
    "chatglm": Small("chatglm", "ChatGLMModel", imported=False, computes=False),
}
