"""Hugging Face folders of models that attend to both sides.

transformers 4 has no switch for it: its decoders mask causally whatever the configuration says. Such a folder
therefore brings its model along, as a module that transformers loads with `trust_remote_code=True`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nemolaunch.errors import NemolaunchError

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


def make_bidirectional(folder: Path) -> None:
    """Turn a folder with a causal model's weights into one whose model attends to both sides.

    Raises:
        NemolaunchError: there is no such model of that family.
    """
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    family = config["model_type"]
    if family not in FAMILIES:
        raise NemolaunchError(
            f"models of type {family} that attend to both sides cannot be exported; "
            f"those of type {', '.join(FAMILIES)} can"
        )
    word = FAMILIES[family] + "Bidirectional"
    config |= {
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
    (folder / f"{MODULE}.py").write_text(module_of(family), encoding="utf-8")
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "generation_config.json").unlink(missing_ok=True)


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
