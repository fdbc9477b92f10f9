"""The one list of tokenizer files: those that define the tokens, and those that accompany them.

Checking, copying, fetching and hashing a tokenizer all use it, so that no kind of tokenizer passes the check
and is then dropped from a copy.
"""

from __future__ import annotations

import fnmatch
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.system import hub, json_files
from nemolaunch.system.installation import how_to_install
from nemolaunch.trust.links import check_within

# Any one of these defines the tokens.
DEFINING = (
    "tokenizer.json",  # the tokenizers library
    "tokenizer.model",  # SentencePiece, or tiktoken in Meta's form
    "spiece.model",  # SentencePiece as T5, XLNet and ALBERT name it
    "sentencepiece.bpe.model",  # … XLM-RoBERTa, mBART and NLLB
    "sentencepiece.model",  # … RemBERT
    "spm.model",  # … DeBERTa
    "tekken.json",  # Mistral
    "tiktoken.model",  # Moonshot
    "*.tiktoken",  # the first Qwen
    "vocab.json",  # byte-level BPE as GPT-2 has it, with merges.txt
    "vocab.txt",  # WordPiece as BERT has it
)
CONFIG, MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
# These accompany a tokenizer and define no tokens.
ACCOMPANYING = (
    "merges.txt",
    CONFIG,
    MAP,
    ADDED,
    "chat_template.jinja",
    "tokenization_*.py",
)
# The model's; transformers finds the tokenizer's class in it where `tokenizer_config.json` names none.
MODEL_CONFIG = "config.json"


def names_among(names: Iterable[str], patterns: Iterable[str] = (*DEFINING, *ACCOMPANYING)) -> list[str]:
    """Return those of some file names that belong to a tokenizer, sorted. Names with a folder never do."""
    wanted = tuple(patterns)
    return sorted(
        name for name in names if "/" not in name and any(fnmatch.fnmatchcase(name, p) for p in wanted)
    )


def files_of(folder: Path, *, config: bool = False) -> list[Path]:
    """Return the tokenizer's files in a folder, sorted; with `config` also the model's `config.json`.

    Raises OSError if the folder cannot be read.
    """
    names = {path.name for path in folder.iterdir() if path.is_file()}
    found = {*names_among(names), *([MODEL_CONFIG] if config and MODEL_CONFIG in names else [])}
    if any(_names_code(folder / name) for name in (CONFIG, MODEL_CONFIG)):
        found |= set(names_among(names, ["*.py"]))  # the tokenizer's code, and what that imports
    return [folder / name for name in sorted(found)]


def _names_code(path: Path) -> bool:
    try:
        return bool(read_json(path).get("auto_map"))
    except ValueError:
        return False


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; empty if there is no such file, or if it holds something else.

    Raises ValueError if the file is not JSON.
    """
    try:
        content = json_files.read_json(path)
    except FileNotFoundError:
        return {}
    return content if isinstance(content, dict) else {}


def defines_tokens(folder: Path) -> bool:
    """Return whether a folder holds a file that defines the tokens of a tokenizer."""
    try:
        return bool(names_among((path.name for path in folder.iterdir() if path.is_file()), DEFINING))
    except OSError:
        return False


def none_of_them() -> str:
    """Return the end of a message about a folder without a tokenizer: the names that were looked for."""
    return f"none of {', '.join(DEFINING)}"


def copy_files(source: Path, target: Path, *, config: bool | None = None) -> None:
    """Copy a tokenizer byte for byte into a folder, which is made if needed; sub-folders are never copied.

    Args:
        config: whether the model's `config.json` is copied too. By default only where nothing else tells
            transformers the tokenizer's class.

    Raises:
        UsageError: the source has no file that defines tokens.
    """
    if not defines_tokens(source):
        raise UsageError(f"{source} has no tokenizer: {none_of_them()}")
    if config is None:
        config = not _names_its_class(source)
    target.mkdir(parents=True, exist_ok=True)
    for file in files_of(source, config=config):
        check_within(file, source)
        shutil.copyfile(file, target / file.name)


def _names_its_class(folder: Path) -> bool:
    try:
        content = read_json(folder / CONFIG)
    except (OSError, ValueError):
        return False
    return bool(content.get("tokenizer_class") or content.get("auto_map"))


def fetch(hub_id: str, token: str | None = None) -> Path:
    """Return the folder with the tokenizer of a repository on the hub, from the cache or downloaded.

    The model's `config.json` is fetched too.

    Raises:
        NemolaunchError: the hub cannot be reached or refuses, or the repository has no tokenizer.
    """
    try:
        folder = hub.snapshot(hub_id, [*DEFINING, *ACCOMPANYING, MODEL_CONFIG, "*.py"], token)
    except ImportError as error:
        raise NemolaunchError(
            f"fetching a tokenizer needs {error.name}: {how_to_install('tokens')}"
        ) from None
    if not defines_tokens(folder):
        raise NemolaunchError(f"{hub_id} has no tokenizer: {none_of_them()}")
    return folder
