"""Write what a version of transformers makes of small models of every family, with each field varied.

    python tests/field/write_configs.py tests/field/configs/transformers-$VERSION.json

Run it with the transformers of constraints.txt, and with transformers 5.12.1 in an environment of its own
(`pip install torch==2.13.0 transformers==5.12.1`). For each variation the file has the `config.json` that transformers
writes, and whether the model with the same weights then computes other logits, or has other weights.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers

SMALL = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
EXPERTS = {"num_experts_per_tok": 2, "head_dim": 8}
LATENT = {
    **EXPERTS, "num_key_value_heads": 4, "kv_lora_rank": 16, "q_lora_rank": 12, "qk_nope_head_dim": 8, "v_head_dim": 8,
    "qk_rope_head_dim": 4, "n_routed_experts": 4, "n_shared_experts": 1, "moe_intermediate_size": 16, "n_group": 2,
    "topk_group": 1, "first_k_dense_replace": 1, "head_dim": 4,
}  # fmt: skip
WINDOWED = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 0}
BASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama4_text": (
        "llama4_text",
        {"head_dim": 8, "intermediate_size_mlp": 48, "num_local_experts": 4, "interleave_moe_layer_step": 2},
    ),
    "mistral": ("mistral", {"sliding_window": 5}),
    "mixtral": ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2": ("qwen2", {}),
    "qwen2 with a window": ("qwen2", WINDOWED),
    "qwen3": ("qwen3", {"head_dim": 8}),
    "qwen3 with a window": ("qwen3", {"head_dim": 8, **WINDOWED}),
    "qwen3_moe": ("qwen3_moe", {**EXPERTS, "num_experts": 4, "moe_intermediate_size": 16}),
    "gemma": ("gemma", {"head_dim": 8}),
    "gemma2": ("gemma2", {"head_dim": 8, "sliding_window": 5}),
    "gemma3_text": ("gemma3_text", {"head_dim": 8, "sliding_window": 5, "num_hidden_layers": 6}),
    "phi3": ("phi3", {}),
    "gpt_bigcode": ("gpt_bigcode", {}),
    "starcoder2": ("starcoder2", {}),
    "nemotron": ("nemotron", {}),
    "deepseek_v2": ("deepseek_v2", {**LATENT, "topk_method": "greedy"}),
    "deepseek_v3": ("deepseek_v3", LATENT),
    "gpt_oss": ("gpt_oss", {**EXPERTS, "num_local_experts": 4, "sliding_window": 5}),
}
# Other values of fields that have no value, or whose values are words or lists
WORDS: dict[str, list[Any]] = {
    "hidden_act": ["relu", "gelu"],
    "hidden_activation": ["relu", "gelu"],
    "activation_function": ["relu", "gelu"],
    "topk_method": ["greedy", "group_limited_greedy", "noaux_tc"],
    "sliding_window": [None, 3, 8],
    "head_dim": [None, 16],
    "num_key_value_heads": [None, 4, 1],
    "q_lora_rank": [None, 8],
    "n_inner": [64],
    "mlp_only_layers": [[0]],
    "query_pre_attn_scalar": [16],
    "attn_logit_softcapping": [None, 2.0],
    "final_logit_softcapping": [None, 2.0],
    "use_bidirectional_attention": [True],
    "layer_types": [["full_attention"] * 4, ["sliding_attention"] * 4, ["sliding_attention", *["full_attention"] * 3]],
    "no_rope_layers": [[1, 1, 1, 1], [0, 1, 1, 1]],
    "moe_layers": [[0]],
    "rope_theta": [5000.0],
    "rope_local_base_freq": [5000.0],
    "rope_scaling": [
        {"rope_type": "default"},
        {"rope_type": "linear", "factor": 4.0},
        {"rope_type": "dynamic", "factor": 4.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "attention_factor": 0.5},
        {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    ],
}  # fmt: skip
PROMPT = torch.randint(3, 48, (1, 24), generator=torch.Generator().manual_seed(1))


def variations(name: str, value: Any) -> list[Any]:
    """Other values of a field."""
    if name in WORDS:
        return [other for other in WORDS[name] if other != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return (
            [2 * value] if value and name not in ("num_experts_per_tok", "moe_router_topk") else [value + 1]
        )
    if isinstance(value, float):
        return [2 * value or 0.1]
    return []


def varied(config: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each variation's name, and the fields to change."""
    rope = config.get("rope_parameters")
    for name in sorted({*config, "sliding_window", "rope_scaling", "layer_types", "partial_rotary_factor"}):
        for other in variations(name, config.get(name)):
            yield f"{name}={json.dumps(other)}", {name: other}
    if isinstance(rope, dict):
        for other in [{"rope_theta": 5000.0}, {"partial_rotary_factor": 0.5}, *WORDS["rope_scaling"]]:
            parts = {kind: part for kind, part in rope.items() if isinstance(part, dict)}
            if parts:
                for kind, part in parts.items():
                    yield (
                        f"rope_parameters.{kind}={json.dumps(other)}",
                        {"rope_parameters": {**rope, kind: {**part, **other}}},
                    )
            else:
                yield f"rope_parameters={json.dumps(other)}", {"rope_parameters": {**rope, **other}}


def written(config: Any) -> dict[str, Any]:
    """Return the content of the `config.json` that transformers writes."""
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        return dict(json.loads(Path(folder, "config.json").read_text()))


def made(kind: str, fields: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Return the `config.json`, and the model with random weights."""
    config = transformers.AutoConfig.for_model(kind, **fields)
    config._attn_implementation = "eager"
    content = written(config)
    torch.manual_seed(0)
    # As a user would load it: from the file, not from the object
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(content))
        loaded = transformers.AutoConfig.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_config(loaded, attn_implementation="eager").float().eval()
    return content, model


def logits(model: Any) -> torch.Tensor:
    """Return the logits of a fixed prompt."""
    with torch.no_grad():
        return model(PROMPT, use_cache=False).logits


def set_weights(model: Any) -> None:
    """Set random weights, which depend on the order of parameters only; no zeros or ones, which hide what norms do."""
    with torch.no_grad():
        for number, tensor in enumerate(model.parameters()):
            tensor.copy_(
                torch.randn(tensor.shape, generator=torch.Generator().manual_seed(number)) * 0.3 + 0.1
            )


def log_probability(values: torch.Tensor) -> float:
    """Return the mean log-probability of the prompt's tokens, given logits `[1, tokens, vocabulary]`."""
    following = PROMPT[:, 1:, None]
    return float(values[:, :-1].double().log_softmax(-1).gather(-1, following).mean())


def computes_other(model: Any, base: Any, expected: torch.Tensor) -> bool:
    """Return whether a model with the weights of the base computes something else, or has other weights."""
    state, own = base.state_dict(), model.state_dict()
    if {name: tensor.shape for name, tensor in state.items()} != {
        name: tensor.shape for name, tensor in own.items()
    }:
        return True
    model.load_state_dict(state)
    got = logits(model)
    return got.shape != expected.shape or bool((got - expected).abs().max() > 1e-6)


def family(kind: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the default `config.json` and the variations of a model."""
    content, base = made(kind, fields)
    with torch.no_grad():
        for number, tensor in enumerate(
            base.parameters()
        ):  # not zeros, nor ones, which hide what norms and biases do
            tensor.copy_(
                torch.randn(tensor.shape, generator=torch.Generator().manual_seed(number)) * 0.3 + 0.1
            )
    expected, found = logits(base), {}
    for name, change in varied(content):
        try:
            other, model = made(kind, {**fields, **change})
            differs = computes_other(model, base, expected)
        except Exception as error:  # transformers itself refuses it
            print(f"{kind} {name}: {type(error).__name__}", file=sys.stderr)
            continue
        delta = {key: value for key, value in other.items() if key not in content or content[key] != value}
        gone = [key for key in content if key not in other]
        if delta or gone:
            found[name] = {"set": delta, "removed": gone, "computes_other": differs}
    return {"config": content, "log_probability": log_probability(expected), "varied": found}


def main(path: str) -> None:
    """Write the file."""
    torch.set_num_threads(1)
    table = {}
    for name, (kind, special) in BASES.items():
        print(name, file=sys.stderr)
        table[name] = family(kind, {**SMALL, **special})
    Path(path).write_text(json.dumps(table, indent=None, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
