"""Recognise adapters (LoRA and its relatives) that have not been merged into their model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from nemolaunch.system.json_files import read_json

# Substrings of the tensor names that PEFT gives to adapters and to the modules they wrap
MARKS = (
    ".lora_A", ".lora_B", ".lora_E", ".lora_embedding_", ".lora_magnitude_vector", ".base_layer.", ".ia3_l",
    ".hada_w", ".lokr_w", ".vera_lambda", ".oft_", ".boft_", ".modules_to_save.", "prompt_encoder.",
    "prompt_embeddings",
)  # fmt: skip
PREFIX = "base_model.model."
CONFIG = "adapter_config.json"
FILES = ("adapter_model.safetensors", "adapter_model.bin")


def adapter_in(folder: Path) -> str | None:
    """Return why a folder cannot be converted, if an adapter is in it; else None."""
    found = next((name for name in (CONFIG, *FILES) if (folder / name).is_file()), None)
    if found is None:
        return None
    return f"{folder} has a LoRA adapter that is not merged into its model ({found}): {_how(folder, _base(folder))}"


def adapter_names(names: Iterable[str], folder: Path | str) -> str | None:
    """Return why tensors cannot be converted, if their names are those of an adapter; else None."""
    found = next((n for n in names if n.startswith(PREFIX) or any(mark in f".{n}" for mark in MARKS)), None)
    if found is None:
        return None
    return f"{folder} has tensors of a LoRA adapter that is not merged into its model ({found}): {_how(folder, None)}"


def _base(folder: Path) -> str | None:
    try:
        content = read_json(folder / CONFIG)
    except (OSError, ValueError):
        return None
    name = content.get("base_model_name_or_path") if isinstance(content, dict) else None
    return str(name) if name else None


def _how(folder: Path | str, base: str | None) -> str:
    model = f"AutoModelForCausalLM.from_pretrained({base or 'BASE'!r})"
    return (
        "merge it into its base model first, and convert the result: "
        f"peft.PeftModel.from_pretrained({model}, {str(folder)!r}).merge_and_unload().save_pretrained('merged')"
    )
