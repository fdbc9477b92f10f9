"""Folders that define tokens, but from which transformers' `AutoTokenizer` cannot load them: what is added to a copy.

- `tokenizer.model` in tiktoken's form, as Meta ships Llama 3;
- a SentencePiece model without a file that names a class;
- `tokenizer.json` without such a file, or with the names that transformers 5 has for it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.system.atomic_files import write_text
from nemolaunch.system.installation import how_to_install
from nemolaunch.tokenizer import classes, files, from_sentencepiece, from_tiktoken, vocabulary
from nemolaunch.tokenizer.fingerprint import SOURCE, file_digests, tokens_digest

JSON = "tokenizer.json"
# Not byte for byte the same in a completed copy, if the source has it
REWRITTEN = (files.CONFIG,)
SENTENCEPIECE = (
    "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "sentencepiece.model", "spm.model"
)  # fmt: skip


def reason(folder: Path) -> str | None:
    """Return why transformers cannot load a folder's tokenizer as it is, as a clause; None if it can.

    Raises OSError or ValueError if the folder cannot be read.
    """
    config = files.read_json(folder / files.CONFIG)
    if (folder / JSON).exists():
        if classes.is_of_v5(config) and not config.get("auto_map"):
            return "it is in transformers 5's form"
        return None if classes.is_told(folder) or config.get("auto_map") else "no file names its class"
    if from_tiktoken.is_tiktoken(folder / "tokenizer.model"):
        end = vocabulary.content_of(config.get("eos_token"))
        others = config.get("added_tokens_decoder") or (end and end not in from_tiktoken.SPECIAL)
        return None if others else "its tokenizer.model is Meta's, in tiktoken's form without special tokens"
    if _model(folder) and not classes.is_told(folder) and not config.get("auto_map"):
        return "it is a SentencePiece model, and no file names its class"
    return None


def _model(folder: Path) -> Path | None:
    return next((folder / name for name in SENTENCEPIECE if (folder / name).exists()), None)


def complete(folder: Path, source: Path | None = None) -> None:
    """Add to a copy of a tokenizer what transformers needs to load it, if anything.

    Args:
        source: the folder that it is a copy of, whose identity the copy then records.

    Raises:
        NemolaunchError: it cannot be converted.
    """
    if reason(folder) is None:
        return
    identity = {"files": file_digests(source or folder), "tokens": tokens_digest(source or folder)}
    config = files.read_json(folder / files.CONFIG)
    roles: dict[str, str] = {}
    if not (folder / JSON).exists():
        try:
            tokenizer, roles = _converted(folder)
        except NemolaunchError as error:
            raise NemolaunchError(f"the tokenizer in {source or folder} cannot be used: {error}") from None
        tokenizer.save(str(folder / JSON))
    write_text(
        folder / files.CONFIG, json.dumps(_generic(config, roles), indent=2, ensure_ascii=False) + "\n"
    )
    if source is not None:
        write_text(folder / SOURCE, json.dumps(identity, indent=2) + "\n")


def _converted(folder: Path) -> tuple[Any, dict[str, str]]:
    try:
        model = folder / "tokenizer.model"
        if from_tiktoken.is_tiktoken(model):
            return from_tiktoken.convert(model)
        return from_sentencepiece.convert(_model(folder) or model)
    except ImportError as error:
        raise NemolaunchError(f"it needs {error.name}: {how_to_install('tokens')}") from None


def _generic(config: dict[str, Any], roles: dict[str, str]) -> dict[str, Any]:
    """Return the `tokenizer_config.json` of transformers' generic class, which adds no tokens of its own."""
    made = {**roles, **config, "tokenizer_class": "PreTrainedTokenizerFast"}
    made.pop("backend", None)
    extra = made.get(vocabulary.NAMED)
    if isinstance(extra, list):
        del made[vocabulary.NAMED]
        made[vocabulary.MORE] = [*(made.get(vocabulary.MORE) or ()), *extra]
    return made


def copy(source: Path, target: Path, *, config: bool | None = None) -> None:
    """Copy a tokenizer into a folder, and complete the copy. The arguments are those of `files.copy_files`.

    Raises:
        UsageError: the source has no file that defines tokens.
        NemolaunchError: it cannot be converted.
    """
    files.copy_files(source, target, config=config)
    if reason(source) is not None:
        complete(target, source)


@contextmanager
def loadable(folder: Path) -> Iterator[Path]:
    """Provide a folder that transformers can load, within a `with` block: itself, or a completed copy.

    Raises:
        UsageError: it has no tokenizer.
        NemolaunchError: it cannot be read or converted.
    """
    try:
        told = reason(folder)
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder} has no usable tokenizer: {error}") from None
    if told is None:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="nemolaunch-tokenizer-") as made:
        copy(folder, Path(made))
        yield Path(made)
