"""What a Hugging Face model folder holds, checked before anything slow starts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.checkpoint.storage.safetensors import read_header
from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.tokenizer import files

WEIGHT_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
DTYPES = ("float32", "float16", "bfloat16")  # that a model can have as a whole


@dataclass(frozen=True)
class HfFolder:
    """A checked model folder: its parsed `config.json` and its files of weights."""

    path: Path
    config: dict[str, Any]
    weights: tuple[Path, ...]

    @property
    def model_type(self) -> str:
        return str(self.config.get("model_type") or "")

    @property
    def dtype(self) -> str | None:
        """The weights' type in torch's spelling: of config.json, or else of the first weights; None if
        unknown."""
        text = self.config.get("text_config")
        for config in (self.config, text if isinstance(text, dict) else {}):
            stated = config.get("dtype") or config.get("torch_dtype")
            if stated:
                return str(stated).removeprefix("torch.")
        if self.weights[0].suffix != ".safetensors":
            return None
        types = {entry.info.dtype for entry in read_header(self.weights[0]).values()}
        return types.pop() if len(types) == 1 else None


def read_folder(path: Path) -> HfFolder:
    """Check a model folder and read its configuration.

    Raises:
        UsageError: it is not a Hugging Face model.
        NemolaunchError: a file is missing, truncated or unreadable.
    """
    if not path.is_dir():
        raise UsageError(f"{path} is not a Hugging Face model folder")
    if not (path / "config.json").is_file():
        raise UsageError(_no_config(path))
    config = read_config(path / "config.json")
    if not config.get("model_type"):
        raise NemolaunchError(f"{path / 'config.json'} names no model_type, so its family is unknown")
    return HfFolder(path, config, _weights(path))


def read_json(path: Path) -> Any:
    """The content of a JSON file; `NemolaunchError` if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NemolaunchError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise NemolaunchError(f"{path} is damaged, it is no JSON: {error}") from error


def read_config(path: Path) -> dict[str, Any]:
    """A `config.json`, with rotary positions under the names that transformers had for them before version 5."""
    config = read_json(path)
    if not isinstance(config, dict):
        raise NemolaunchError(f"{path} holds no configuration")
    for part in [config, config["text_config"]] if isinstance(config.get("text_config"), dict) else [config]:
        rope = part.get("rope_parameters")
        if isinstance(rope, dict) and "rope_theta" in rope:
            part.setdefault("rope_theta", rope["rope_theta"])
            part.setdefault(
                "rope_scaling", {name: value for name, value in rope.items() if name != "rope_theta"}
            )
    return config


def check_tokenizer(folder: Path) -> None:
    """Raise `UsageError` if a folder has no tokenizer."""
    if not files.defines_tokens(folder):
        raise UsageError(
            f"{folder} has no tokenizer ({files.none_of_them()}), which a NeMo checkpoint needs; "
            "name the folder of the model's with --tokenizer"
        )


def copy_tokenizer(source: Path, target: Path, *, config: bool = True) -> None:
    """Copy the tokenizer of a model folder, byte for byte, into the folder `target`, made if needed.

    `config` says whether `config.json` comes too: without it transformers cannot tell the class of some
    tokenizers. Raises `UsageError` when there is no tokenizer.
    """
    check_tokenizer(source)
    files.copy_files(source, target, config=config)


def _weights(path: Path) -> tuple[Path, ...]:
    """All files of weights, complete: every shard is there and no safetensors file is cut off."""
    found: list[Path] = []
    for name in WEIGHT_INDEXES:
        if (path / name).is_file():
            index = read_json(path / name)
            shards = sorted(set(index["weight_map"].values()))
            missing = [shard for shard in shards if not (path / shard).is_file()]
            if missing:
                raise NemolaunchError(
                    f"{path} is incomplete: {name} lists {len(shards)} files of weights, of which "
                    f"{len(missing)} are missing: {', '.join(missing[:5])}"
                )
            found = [path / shard for shard in shards]
            break
    else:
        found = [path / name for name in WEIGHTS if (path / name).is_file()][:1]
    if not found:
        raise UsageError(f"{path} has no weights: none of {', '.join((*WEIGHT_INDEXES, *WEIGHTS))}")
    for file in found:
        if file.suffix == ".safetensors":
            read_header(file)
    return tuple(found)


def _no_config(path: Path) -> str:
    if (path / "adapter_config.json").is_file():
        return f"{path} holds a LoRA adapter, not a model; merge it into its base model first"
    if (path / "weights").is_dir() and (path / "context").is_dir():
        return f"{path} is a NeMo 2 checkpoint, not a Hugging Face model"
    inner = sorted(path.glob("*/config.json"))
    hint = f"; did you mean {inner[0].parent}?" if inner else ""
    return f"{path} has no config.json, so it is not a Hugging Face model folder{hint}"
