"""Meta's `params.json` of a Llama, and Hugging Face's `config.json` for the same model.

Fields and formulas: `ModelArgs` and `FeedForward` in https://github.com/meta-llama/llama-models (models/llama3).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from nemolaunch.checkpoint.hf.config_diff import meaning
from nemolaunch.errors import NemolaunchError

# What `use_scaled_rope` means: the scaling of Llama 3.1. Llama 3.2 has a factor of 32, which its params.json lacks
SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
LLAMA_3_2 = {(2048, 16): 32.0, (3072, 28): 32.0}  # (dim, n_layers) of 1B and 3B
DEFAULT_THETA = 10000.0
DEFAULT_MULTIPLE = 256
USUAL_MULTIPLIERS = (None, 1.3, 1.5)  # of Llama 1 and 2, of 3 8B and 70B, of 3.2 1B
USUAL_MULTIPLES = (256, 1024, 4096)
PUBLISHED_LENGTHS = {"Llama 3.1": 131072, "Llama 3": 8192, "Code Llama": 16384, "Llama 2": 4096}
REQUIRED = ("dim", "n_layers", "n_heads", "norm_eps")
# Fields of config.json that have only one value in Meta's model
FIXED = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False}


def config_of(
    params: Mapping[str, Any], *, vocab_size: int, ffn_size: int, tied: bool, dtype: str
) -> tuple[dict[str, Any], list[str]]:
    """Return the `config.json` for a `params.json`, and what had to be assumed, in words.

    Args:
        vocab_size, ffn_size: the rows of the embedding and of the feed-forward layers.
        tied: whether the output layer is the embedding.
        dtype: the dtype of the weights, in torch's spelling.

    Raises `NemolaunchError` if a field is missing, or the model is not a plain Llama.
    """
    missing = [name for name in REQUIRED if name not in params]
    if missing:
        raise NemolaunchError(f"params.json lacks {', '.join(missing)}")
    for name in ("vision_chunk_size", "vision_num_cross_attention_layers", "moe_args"):
        if params.get(name) not in (None, -1):
            raise NemolaunchError(f"params.json has {name}: only Llama's text models can be converted")
    theta, scaled = float(params.get("rope_theta", DEFAULT_THETA)), bool(params.get("use_scaled_rope"))
    length, family = _length(theta, scaled)
    assumed = [f"params.json does not give the maximum sequence length: using {length}, as in {family}"]
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": int(params["dim"]),
        "intermediate_size": ffn_size,
        "num_hidden_layers": int(params["n_layers"]),
        "num_attention_heads": int(params["n_heads"]),
        "num_key_value_heads": int(params.get("n_kv_heads") or params["n_heads"]),
        "vocab_size": vocab_size,
        "rms_norm_eps": float(params["norm_eps"]),
        "rope_theta": theta,
        "rope_scaling": None,
        "max_position_embeddings": length,
        "tie_word_embeddings": tied,
        "torch_dtype": dtype,
        **FIXED,
    }
    if scaled:
        config["rope_scaling"], note = _scaling(params)
        assumed += note
    return config, assumed


def params_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `params.json` for a Llama's `config.json`.

    Raises `NemolaunchError` with every field that Meta's format cannot represent.
    """
    faults = _faults(config)
    if faults:
        raise NemolaunchError("Meta's format cannot represent this model:\n" + "\n".join(faults))
    dim, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    params: dict[str, Any] = {
        "dim": dim,
        "n_layers": int(config["num_hidden_layers"]),
        "n_heads": heads,
        "n_kv_heads": int(config.get("num_key_value_heads") or heads),
        "vocab_size": int(config["vocab_size"]),
        **ffn_params(dim, int(config["intermediate_size"])),
        "norm_eps": float(config["rms_norm_eps"]),
        "rope_theta": float(config.get("rope_theta", DEFAULT_THETA)),
    }
    scaling = _scaling_of(config)
    if scaling is not None:
        params["use_scaled_rope"] = True
        params.update(
            {
                f"rope_{name}": float(scaling[key])
                for name, key in (("scaling_factor", "factor"), ("high_freq_factor", "high_freq_factor"))
                if scaling[key] != SCALING[key]
            }
        )
    return params


def ffn_size(dim: int, multiple_of: int, ffn_dim_multiplier: float | None) -> int:
    """Return the rows of the feed-forward layers that Meta's `FeedForward` derives from these fields."""
    size = int(8 * dim / 3)
    if ffn_dim_multiplier is not None:
        size = int(ffn_dim_multiplier * size)
    return -(-size // multiple_of) * multiple_of


def ffn_params(dim: int, size: int) -> dict[str, Any]:
    """Return `multiple_of` and `ffn_dim_multiplier` that give `size` in `ffn_size`, preferring published values."""
    for multiple, multiplier in itertools.product(USUAL_MULTIPLES, USUAL_MULTIPLIERS):
        if ffn_size(dim, multiple, multiplier) == size:
            return _ffn_fields(multiple, multiplier)
    multiple = min(size & -size, DEFAULT_MULTIPLE)  # the largest power of two that divides it
    multiplier = (size - multiple + 0.5 + multiple / 2) / int(8 * dim / 3)
    return _ffn_fields(multiple, multiplier)


def _ffn_fields(multiple: int, multiplier: float | None) -> dict[str, Any]:
    fields: dict[str, Any] = {"multiple_of": multiple}
    return fields if multiplier is None else {**fields, "ffn_dim_multiplier": multiplier}


def _length(theta: float, scaled: bool) -> tuple[int, str]:
    if scaled:
        family = "Llama 3.1"
    elif theta == 500000.0:
        family = "Llama 3"
    else:
        family = "Code Llama" if theta > DEFAULT_THETA else "Llama 2"
    return PUBLISHED_LENGTHS[family], family


def _scaling(params: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    shape = (int(params["dim"]), int(params["n_layers"]))
    note = []
    factor = params.get("rope_scaling_factor")
    if factor is None:
        factor = LLAMA_3_2.get(shape, 8.0)
        family = "Llama 3.2" if shape in LLAMA_3_2 else "Llama 3.1"
        note = [f"params.json does not give the rotary scaling factor: using {factor:g}, as in {family}"]
    high = params.get("rope_high_freq_factor", SCALING["high_freq_factor"])
    return {**SCALING, "factor": float(factor), "high_freq_factor": float(high)}, note


def _scaling_of(config: Mapping[str, Any]) -> dict[str, Any] | None:
    return meaning("rope_scaling", config) if config.get("rope_scaling") else None


def _faults(config: Mapping[str, Any]) -> list[str]:
    faults = []
    if config.get("model_type") != "llama":
        return [f"  model_type is {config.get('model_type')!r}, not 'llama'"]
    for name, value in FIXED.items():
        if config.get(name, value) != value:
            faults.append(f"  {name} is {config[name]!r}, not {value!r}")
    width = config["hidden_size"] // config["num_attention_heads"]
    if (config.get("head_dim") or width) != width:
        faults.append(f"  head_dim is {config['head_dim']}, not hidden_size / num_attention_heads = {width}")
    scaling = _scaling_of(config)
    if scaling is not None:
        for name in ("rope_type", "low_freq_factor", "original_max_position_embeddings"):
            if scaling.get(name) != SCALING[name]:
                faults.append(f"  rope_scaling's {name} is {scaling.get(name)!r}, not {SCALING[name]!r}")
    return faults
