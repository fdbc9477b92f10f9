"""Hugging Face folders of models that attend to both sides.

transformers 4 has no switch for it: its decoders mask causally whatever the configuration says. Such a folder
therefore brings its model along, as a module that transformers loads with `trust_remote_code=True`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemolaunch.checkpoint.families.nemo_config import symbol
from nemolaunch.errors import NemolaunchError
from nemolaunch.facts.checkpoint import TWO_SIDED_LAYERS

MODULE = "modeling_bidirectional"
SUFFIX = "_bidirectional"
# transformers' model_type -> the word its classes begin with, where these are put together as Llama's are
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

# NeMo's layers that attend to both sides, as `model.yaml` and `io.json` name them
NEMO_FIELDS = {"transformer_layer_spec": symbol(TWO_SIDED_LAYERS)}


def attends_to_both_sides(fields: Mapping[str, Any]) -> bool:
    """Whether NeMo's model of these fields, as `model.yaml` has them, attends to both sides of a token."""
    return fields.get("transformer_layer_spec") == NEMO_FIELDS["transformer_layer_spec"]


def check_family(family: str) -> None:
    """Raise `NemolaunchError` unless a model of that `model_type` can be had with attention to both sides."""
    if family not in FAMILIES:
        raise NemolaunchError(
            f"this model attends to both sides, and transformers has none of type {family} that could; "
            f"of type {', '.join(FAMILIES)} there are"
        )


def make_bidirectional(folder: Path) -> None:
    """Turn a folder with a causal model's weights into one whose model attends to both sides.

    Raises:
        NemolaunchError: there is no such model of that family.
    """
    path = folder / "config.json"
    causal = json.loads(path.read_text(encoding="utf-8"))
    config = two_sided_config(causal)
    (folder / f"{MODULE}.py").write_text(module_of(causal["model_type"]), encoding="utf-8")
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "generation_config.json").unlink(missing_ok=True)


def two_sided_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The `config.json` of a model that attends to both sides, from that of the causal one.

    Raises:
        NemolaunchError: there is no such model of that family.
    """
    family = str(config.get("model_type"))
    check_family(family)
    word = FAMILIES[family] + "Bidirectional"
    return {
        **config,
        "model_type": family + SUFFIX,
        "architectures": [f"{word}ForMaskedLM"],
        "auto_map": {
            "AutoConfig": f"{MODULE}.{word}Config",
            "AutoModel": f"{MODULE}.{word}Model",
            "AutoModelForMaskedLM": f"{MODULE}.{word}ForMaskedLM",
        },
        "is_causal": False,
        "use_cache": False,
    }


def causal_config(config: dict[str, Any]) -> dict[str, Any]:
    """The `config.json` of the causal model with the same weights, which NeMo's importers know."""
    family = family_of(config)
    if family is None:
        return config
    left_out = ("auto_map", "is_causal")
    kept = {name: value for name, value in config.items() if name not in left_out}
    return {**kept, "model_type": family, "architectures": [f"{FAMILIES[family]}ForCausalLM"]}


def module_of(family: str) -> str:
    """The module of a family: Llama's, which stands beside this file, with the family's names."""
    text = (Path(__file__).parent / f"{MODULE}.py").read_text(encoding="utf-8")
    return text.replace("Llama", FAMILIES[family]).replace('"llama', f'"{family}')


def family_of(config: dict[str, Any]) -> str | None:
    """The family of a model that attends to both sides, by its `config.json`; None for any other model."""
    kind = str(config.get("model_type") or "")
    family = kind.removesuffix(SUFFIX)
    return family if kind.endswith(SUFFIX) and family in FAMILIES else None


def is_ours(folder: Path, family: str) -> bool:
    """Whether the folder's module is the one written here, and so may be run without asking."""
    try:
        return (folder / f"{MODULE}.py").read_text(encoding="utf-8") == module_of(family)
    except OSError:
        return False
