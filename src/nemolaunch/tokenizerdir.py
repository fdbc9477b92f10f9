"""A tokenizer as its folder shows it, without the libraries that would load it."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.fingerprint import TOKENIZER_FILES, tokenizer_digest
from nemolaunch.nearby import missing_part, nearest
from nemolaunch.rundir import read_json


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """The tokenizer a job names. `folder` is None while it is only an id on a hub.

    Attributes:
        digest: names its files, as `nemolaunch.fingerprint` does; None while there are none.
        instead: where there is no such folder: the one that was probably meant.
        model_config: the `config.json` beside it, where it is a whole model's folder.
    """

    source: str
    folder: str | None = None
    vocab_size: int | None = None
    digest: str | None = None
    model_config: dict[str, Any] | None = None
    error: str | None = None
    instead: str | None = None


def look_at_tokenizer(source: str) -> Tokenizer:
    """A tokenizer by folder or hub id; a hub id is looked up in the local cache only."""
    folder = os.path.abspath(os.path.expanduser(source))
    if not os.path.isdir(folder):
        cached = _cached_snapshot(source)
        if cached is None:
            if source.startswith((".", "/", "~")) or source.count("/") != 1:
                return _nothing_there(source)
            return Tokenizer(source=source)
        folder = cached
    try:
        return Tokenizer(
            source=source,
            folder=folder,
            vocab_size=_vocab_size(Path(folder)),
            digest=tokenizer_digest(Path(folder)),
            model_config=read_json(Path(folder, "config.json")),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Tokenizer(source=source, folder=folder, error=f"{folder} holds no usable tokenizer: {error}")


def _nothing_there(source: str) -> Tokenizer:
    above = missing_part(source)
    where = f" ({above} does not exist)" if above else ""
    instead = nearest(source, _is_tokenizer)
    return Tokenizer(source=source, error=f"there is no folder {source}{where}", instead=instead)


def _is_tokenizer(path: str) -> bool:
    folder = Path(path).expanduser()
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def _cached_snapshot(hub_id: str) -> str | None:
    """Folder of the snapshot the Hugging Face cache holds for `main`, if it has a tokenizer."""
    home = os.environ.get("HF_HOME") or os.path.expanduser("~/.cache/huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub"))
    repository = cache / ("models--" + hub_id.replace("/", "--"))
    try:
        revision = (repository / "refs" / "main").read_text().strip()
    except (OSError, ValueError):  # there can be no such name
        return None
    snapshot = repository / "snapshots" / revision
    return str(snapshot) if any(snapshot.glob("tokenizer*")) else None


def _vocab_size(folder: Path) -> int | None:
    """Number of entries including added tokens, as `len(tokenizer)`; None where only a library could tell."""
    path = folder / "tokenizer.json"
    if not path.exists():
        if not any(folder.glob("tokenizer*")) and not (folder / "vocab.json").exists():
            raise ValueError("no tokenizer.json, tokenizer.model or vocab.json")
        return None
    text = path.read_text(encoding="utf-8")
    vocab = _value(text, "vocab")
    names = set(vocab) if isinstance(vocab, dict) else {entry[0] for entry in vocab}
    names.update(token["content"] for token in _value(text, "added_tokens") or ())
    config = read_json(folder / "tokenizer_config.json") or {}
    names.update(token["content"] for token in config.get("added_tokens_decoder", {}).values())
    return len(names)


def _value(text: str, key: str) -> Any:
    """The value of a key that occurs once, without reading the rest: merges are most of a large tokenizer.

    Quotes within texts are escaped, so the quoted word before a colon is a key.
    """
    found = re.search(rf'"{key}"\s*:\s*', text)
    if found is None:
        raise ValueError(f"tokenizer.json has no {key}")
    return json.JSONDecoder().raw_decode(text, found.end())[0]
