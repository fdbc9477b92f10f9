"""A tokenizer's identity: a hash over the files that determine its tokens. Standard library only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from nemolaunch.tokenizer import files, vocabulary

# In a completed copy: the identity of the tokenizer it was made from, see `nemolaunch.tokenizer.completion`
SOURCE = "tokenizer_source.json"
# If one of these defines the tokens, only these count: digests over them are recorded beside existing data.
RECORDED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)


def file_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file that determines a tokenizer's tokens, without the chat template.

    Raises OSError if the folder cannot be read.
    """
    recorded = files.read_json(folder / SOURCE).get("files")
    if recorded:
        return dict(recorded)
    names = [path.name for path in files.files_of(folder)]
    counted = [name for name in names if name in RECORDED]
    if not files.names_among(counted, files.DEFINING):
        counted += [name for name in files.names_among(names, files.DEFINING) if name not in counted]
    return {name: hashlib.sha256(_content(folder / name)).hexdigest() for name in counted}


def tokenizer_digest(folder: Path, digests: Mapping[str, str] | None = None) -> str:
    """Return one SHA-256 over the names and contents of a tokenizer's files, as hexadecimal digits.

    `digests` are its `file_digests`, if they are known already.
    """
    lines = [f"{name} {digest}\n" for name, digest in sorted((digests or file_digests(folder)).items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def tokens_digest(folder: Path, digests: Mapping[str, str] | None = None) -> str:
    """Return a SHA-256 that is also that of a run's copy, in which masked training names the mask token.

    `digests` are its `file_digests`, if they are known already. Raises OSError if the folder cannot be read.
    """
    recorded = files.read_json(folder / SOURCE).get("tokens")
    if recorded:
        return str(recorded)
    digests = digests or file_digests(folder)
    named = {name: _without_mask(folder / name) for name in vocabulary.ROLE_FILES}
    return hashlib.sha256(json.dumps({**digests, **named}, sort_keys=True).encode()).hexdigest()


def _without_mask(path: Path) -> str:
    content = json.loads(_content(path)) if path.exists() else {}
    if isinstance(content, dict):
        content.pop(vocabulary.MASK, None)
    return json.dumps(content, sort_keys=True)


def _content(path: Path) -> bytes:
    data = path.read_bytes()
    if path.name != "tokenizer_config.json":
        return data
    try:
        config = json.loads(data)
    except ValueError:
        return data
    if isinstance(config, dict):
        config.pop("chat_template", None)
    return json.dumps(config, sort_keys=True).encode()
