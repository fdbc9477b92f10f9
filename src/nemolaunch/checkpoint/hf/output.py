"""What a Hugging Face model folder has besides weights: configuration, tokenizer, generation config."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemolaunch.checkpoint.hf import bidirectional, config_diff, hub
from nemolaunch.checkpoint.hf import folder as hf_folder
from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.system.installation import how_to_install
from nemolaunch.tokenizer import files, library

GENERATION = "generation_config.json"
TOKEN_IDS = ("bos", "eos", "pad")
DROPPED = ("quantization_config", "_name_or_path")
FROM_A_RELATIVE = ("bos_token_id", "eos_token_id", "pad_token_id", "auto_map", "dtype", "torch_dtype")


def write_extras(
    folder: Path, config: Mapping[str, Any], dtype: str, tokenizer: Path, generation: Path | None
) -> None:
    """Write `config.json`, the tokenizer's files, and `generation_config.json` if there is one.

    Args:
        config: the translated configuration.
        dtype: the dtype of the weights, in torch's spelling.
        tokenizer: the folder with the tokenizer. Its `config.json`, if it is of the same family, supplies what
            NeMo's configuration lacks: token ids, and where a model's own code is.
        generation: the `generation_config.json` to copy, if it exists.
    """
    like = _like(tokenizer, config)
    spelling = "dtype" if "dtype" in like else "torch_dtype"
    written = {**like, **_spelled(config, like), spelling: dtype}
    for kind, number in _token_ids(tokenizer).items():
        written.setdefault(f"{kind}_token_id", number)
    (folder / "config.json").write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    hf_folder.copy_tokenizer(tokenizer, folder, config=False)
    if generation and generation.is_file():
        shutil.copyfile(generation, folder / GENERATION)
    for code in sorted(tokenizer.glob("*.py")):
        shutil.copyfile(code, folder / code.name)


def _like(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of the tokenizer folder's `config.json`: all if it is the same model's, few if a relative's."""
    path = folder / "config.json"
    found = bidirectional.causal_config(hf_folder.read_config(path)) if path.is_file() else {}
    text = found.get("text_config")
    if isinstance(text, dict) and text.get("model_type") == config["model_type"]:
        found = text
    if found.get("model_type") != config["model_type"]:
        return {}
    found = {name: value for name, value in found.items() if name not in DROPPED}
    _, different = config_diff.differences(found, config, {"architectures"})
    return {name: value for name, value in found.items() if name in FROM_A_RELATIVE} if different else found


def _spelled(config: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields as `like` spells them, where the meaning is the same."""
    return {name: like[name] if _same(name, config, like) else value for name, value in config.items()}


def _same(name: str, config: Mapping[str, Any], like: Mapping[str, Any]) -> bool:
    if name not in like:
        return False
    return bool(config_diff.meaning(name, {**config, name: like[name]}) == config_diff.meaning(name, config))


def _token_ids(folder: Path) -> dict[str, int]:
    """Return the ids of the special tokens of a tokenizer; none if they cannot be known here."""
    try:
        known = library.vocabulary_of(folder)
    except (OSError, ValueError, KeyError, TypeError, NemolaunchError):
        return {}
    found = {kind: known.id_of(f"{kind}_token") for kind in TOKEN_IDS} if known else {}
    return {kind: number for kind, number in found.items() if number is not None}


def tokenizer_size(folder: Path, *, trust_remote_code: bool = False) -> int:
    """Return the number of tokens of a tokenizer, including added ones, as NeMo counts them.

    Raises `NemolaunchError` if it cannot be loaded, or needs code that is not trusted.
    """
    library.check_code(folder, trust_remote_code)
    try:
        found = library.vocabulary_of(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NemolaunchError(f"the tokenizer in {folder} cannot be loaded: {error}") from error
    if found is None:
        raise NemolaunchError(
            f"counting the tokens of {folder} needs transformers: {how_to_install('tokens')}"
        )
    return found.size


def find_tokenizer(context: Path, recorded: str | None, given: Path | None) -> Path:
    """Return the folder with a NeMo checkpoint's tokenizer: the given one, or the one its context records.

    Raises:
        UsageError: there is no tokenizer.
        NemolaunchError: the tokenizer is on the Hub, which cannot be reached.
    """
    if given is not None:
        folder = given.expanduser()
        if not files.defines_tokens(folder):
            raise UsageError(f"--tokenizer {given} has no tokenizer: {files.none_of_them()}")
        return folder
    for folder in [context / recorded, Path(recorded)] if recorded else []:
        if files.defines_tokens(folder):
            return folder
    if recorded and hub.HUB_ID.fullmatch(recorded):
        return hub.tokenizer(recorded)
    named = f"names {recorded!r}, which is not a folder here" if recorded else "does not name one"
    raise UsageError(f"the checkpoint's tokenizer was not found: its context {named}; use --tokenizer DIR")
