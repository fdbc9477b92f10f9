"""Hugging Face model folders, checked before anything slow starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemolaunch.checkpoint.hf.weight_files import WeightFiles, find_weights
from nemolaunch.checkpoint.storage.adapters import adapter_in
from nemolaunch.checkpoint.storage.safetensors import read_header
from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.families.config_json import canonical
from nemolaunch.system.json_files import read_json as read_bounded
from nemolaunch.tokenizer import completion, files

DTYPES = ("float32", "float16", "bfloat16")  # what a model as a whole can have


@dataclass(frozen=True)
class HfFolder:
    """A checked model folder: its parsed `config.json` and its weight files."""

    path: Path
    config: dict[str, Any]
    files: WeightFiles = field(default_factory=WeightFiles)

    @property
    def weights(self) -> tuple[Path, ...]:
        """The weight files, in order."""
        return self.files.paths

    @property
    def model_type(self) -> str:
        """The `model_type` of `config.json`."""
        return str(self.config.get("model_type") or "")

    @property
    def dtype(self) -> str | None:
        """The dtype of the weights in torch's spelling, from config.json or the first file; None if unknown."""
        text = self.config.get("text_config")
        for config in (self.config, text if isinstance(text, dict) else {}):
            stated = config.get("dtype") or config.get("torch_dtype")
            if stated:
                return str(stated).removeprefix("torch.")
        if not self.weights or self.weights[0].suffix != ".safetensors":
            return None
        types = {info.dtype for info in read_header(self.weights[0]).values()}
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
        raise NemolaunchError(f"{path / 'config.json'} has no model_type, so the model's family is unknown")
    weights = find_weights(path, config)
    for file in weights.paths:
        if file.suffix == ".safetensors":
            read_header(file)  # raises for a truncated file
    return HfFolder(path, config, weights)


def read_json(path: Path) -> Any:
    """Return the content of a JSON file. Raises `NemolaunchError` if it cannot be read."""
    try:
        return read_bounded(path)
    except OSError as error:
        raise NemolaunchError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise NemolaunchError(f"{path} is not valid JSON: {error}") from error


def read_config(path: Path) -> dict[str, Any]:
    """Return a `config.json`, with the names that transformers had before version 5."""
    return canonical(read_written_config(path))


def read_written_config(path: Path) -> dict[str, Any]:
    """Return a `config.json` as it is written. Raises `NemolaunchError` if it cannot be read."""
    config = read_json(path)
    if not isinstance(config, dict):
        raise NemolaunchError(f"{path} is not a configuration: it has to be a JSON object")
    return config


def check_tokenizer(folder: Path) -> None:
    """Raise `UsageError` if a folder has no tokenizer."""
    if not files.defines_tokens(folder):
        raise UsageError(
            f"{folder} has no tokenizer ({files.none_of_them()}), which a NeMo checkpoint needs; "
            "use --tokenizer DIR with the folder of the model's tokenizer"
        )


def copy_tokenizer(source: Path, target: Path, *, config: bool = True) -> None:
    """Copy the tokenizer of a model folder byte for byte into the folder `target`, which is created if needed.

    What transformers needs to load it is added.

    With `config`, `config.json` is copied too: transformers needs it to determine the class of some tokenizers.
    Raises `UsageError` if there is no tokenizer.
    """
    check_tokenizer(source)
    completion.copy(source, target, config=config)


def _no_config(path: Path) -> str:
    adapter = adapter_in(path)
    if adapter:
        return adapter
    if (path / "weights").is_dir() and (path / "context").is_dir():
        return f"{path} is a NeMo 2 checkpoint, not a Hugging Face model"
    inner = sorted(path.glob("*/config.json"))
    hint = f"; did you mean {inner[0].parent}?" if inner else ""
    return f"{path} has no config.json, so it is not a Hugging Face model folder{hint}"
