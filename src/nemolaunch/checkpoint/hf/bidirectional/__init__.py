"""Hugging Face folders of bidirectional models.

transformers 4 has no switch for bidirectional attention: its decoders mask causally whatever the configuration says.
So these folders contain their own model code, a module that transformers loads with `trust_remote_code=True`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemolaunch.errors import NemolaunchError
from nemolaunch.families.nemo_config import BIDIRECTIONAL_LAYERS, symbol
from nemolaunch.system.json_files import read_json

ADAPTER = "adapter_config.json"
MODULE = "modeling_bidirectional"
SUFFIX = "_bidirectional"
# transformers' model_type -> the prefix of its classes, for families that are built like Llama
FAMILIES = {
    "gemma": "Gemma",
    "llama": "Llama",
    "mistral": "Mistral",
    "mixtral": "Mixtral",
    "nemotron": "Nemotron",
    "phi3": "Phi3",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "qwen3_moe": "Qwen3Moe",
    "starcoder2": "Starcoder2",
}

# NeMo's bidirectional layers, as `model.yaml` and `io.json` name them
NEMO_FIELDS = {"transformer_layer_spec": symbol(BIDIRECTIONAL_LAYERS)}


def is_bidirectional(fields: Mapping[str, Any]) -> bool:
    """Return whether NeMo's model with these fields, as `model.yaml` has them, is bidirectional."""
    return fields.get("transformer_layer_spec") == NEMO_FIELDS["transformer_layer_spec"]


def check_family(family: str) -> None:
    """Raise `NemolaunchError` unless models of that `model_type` can be exported as bidirectional ones."""
    if family not in FAMILIES:
        raise NemolaunchError(
            f"this model has bidirectional attention, which cannot be exported for model_type {family!r}; it can be "
            f"for {', '.join(FAMILIES)}"
        )


def make_bidirectional(folder: Path) -> None:
    """Turn a folder with a causal model's weights into one of a bidirectional model.

    Raises:
        NemolaunchError: the family cannot be exported as a bidirectional model.
    """
    path = folder / "config.json"
    causal = read_json(path)
    config = bidirectional_config(causal)
    (folder / f"{MODULE}.py").write_text(module_of(causal["model_type"]), encoding="utf-8")
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "generation_config.json").unlink(missing_ok=True)


def bidirectional_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `config.json` of a bidirectional model, given that of the causal one.

    Raises:
        NemolaunchError: the family cannot be exported as a bidirectional model.
    """
    family = str(config.get("model_type"))
    check_family(family)
    prefix = FAMILIES[family] + "Bidirectional"
    return {
        **config,
        "model_type": family + SUFFIX,
        "architectures": [f"{prefix}ForMaskedLM"],
        "auto_map": {
            "AutoConfig": f"{MODULE}.{prefix}Config",
            "AutoModel": f"{MODULE}.{prefix}Model",
            "AutoModelForMaskedLM": f"{MODULE}.{prefix}ForMaskedLM",
        },
        "is_causal": False,
        "use_cache": False,
    }


def causal_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return the `config.json` of the causal model with the same weights, which NeMo's importers know."""
    family = family_of(config)
    if family is None:
        return config
    kept = {name: value for name, value in config.items() if name not in ("auto_map", "is_causal")}
    return {**kept, "model_type": family, "architectures": [f"{FAMILIES[family]}ForCausalLM"]}


def module_of(family: str) -> str:
    """Return a family's module: Llama's, which is next to this file, with the family's names."""
    text = (Path(__file__).parent / f"{MODULE}.py").read_text(encoding="utf-8")
    return text.replace("Llama", FAMILIES[family]).replace('"llama', f'"{family}')


def family_of(config: dict[str, Any]) -> str | None:
    """Return the family of a bidirectional model, given its `config.json`; None for any other model."""
    kind = str(config.get("model_type") or "")
    family = kind.removesuffix(SUFFIX)
    return family if kind.endswith(SUFFIX) and family in FAMILIES else None


def is_ours(folder: Path, family: str) -> bool:
    """Return whether the only code that transformers would run in a folder is the module written here.

    It runs whatever `auto_map` names, in this folder or on the Hub, and in the base model's folder of an adapter.
    """
    try:
        module = (folder / f"{MODULE}.py").read_text(encoding="utf-8")
        config = read_json(folder / "config.json")
    except (OSError, ValueError):
        return False
    if not isinstance(config, dict) or (folder / ADAPTER).exists():
        return False
    expected = bidirectional_config({**config, "model_type": family})["auto_map"]
    return module == module_of(family) and config.get("auto_map") == expected and _maps(config) == 1


def _maps(value: Any) -> int:
    """Count the `auto_map` in a configuration and the configurations inside it."""
    if isinstance(value, dict):
        return ("auto_map" in value) + sum(_maps(part) for part in value.values())
    return sum(_maps(part) for part in value) if isinstance(value, list) else 0
