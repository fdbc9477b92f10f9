"""Which tokenizer this is: a hash over the files that decide its tokens. Standard library only."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

TOKENIZER_FILES = (
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


def tokenizer_files(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of a tokenizer, by name. The chat template is left out: it changes no token.

    Raises OSError if the folder cannot be read.
    """
    found = {}
    for name in TOKENIZER_FILES:
        path = folder / name
        if path.is_file():
            found[name] = hashlib.sha256(_content(path)).hexdigest()
    return found


def tokenizer_digest(folder: Path) -> str:
    """One SHA-256 over names and contents of a tokenizer's files, as hexadecimal digits."""
    lines = [f"{name} {digest}\n" for name, digest in sorted(tokenizer_files(folder).items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


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
