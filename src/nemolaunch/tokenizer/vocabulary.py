"""The tokens in a tokenizer's folder and their roles. Standard library only."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nemolaunch.system.atomic_files import write_text
from nemolaunch.tokenizer import files

MASK = "mask_token"
ROLES = ("bos_token", "eos_token", "pad_token", "unk_token", "cls_token", "sep_token", MASK)
CONFIG, MAP = ROLE_FILES = "tokenizer_config.json", "special_tokens_map.json"
# `<|reserved_special_token_7|>` of Llama 3, `<unused7>` of Gemma, `[unused7]` and `[MASK]` of BERT
_SPARE = re.compile(r"[<\[].*(reserved|unused|extra_id|mask).*[>\]]", re.IGNORECASE)


def words(folder: Path) -> frozenset[str] | None:
    """Return all entries including added tokens; None if only a library could find them.

    Raises OSError, ValueError, KeyError or TypeError if there is no usable tokenizer.
    """
    known = ids(folder)
    return None if known is None else frozenset(known)


def ids(folder: Path) -> dict[str, int] | None:
    """Return entry → id, added tokens included; None if only a library could find them.

    Raises OSError, ValueError, KeyError or TypeError if there is no usable tokenizer.
    """
    path = folder / "tokenizer.json"
    if not path.exists():
        if not files.defines_tokens(folder):
            raise ValueError(files.none_of_them())
        return None
    text = path.read_text(encoding="utf-8")
    vocab = _value(text, "vocab")
    known = dict(vocab) if isinstance(vocab, dict) else {entry[0]: i for i, entry in enumerate(vocab)}
    known.update((token["content"], token["id"]) for token in _value(text, "added_tokens") or ())
    added = _read(folder / CONFIG).get("added_tokens_decoder", {})
    known.update((token["content"], int(number)) for number, token in added.items())
    return known


def end_token(named: Mapping[str, str]) -> str | None:
    """Return the token that ends texts, given role → token: like NeMo's tokenizer, the separator if none does."""
    return named.get("eos_token") or named.get("sep_token")


def roles(folder: Path) -> dict[str, str]:
    """Return role (`bos_token`, `mask_token`, …) → token, for the roles named in the tokenizer's files."""
    found = {**_read(folder / MAP), **_read(folder / CONFIG)}
    named = {role: _text(found.get(role)) for role in ROLES}
    return {role: token for role, token in named.items() if token}


def spare(names: Iterable[str], taken: Iterable[str]) -> list[str]:
    """Return tokens without a role whose names say that they are reserved, in the order of their numbers."""
    free = [name for name in names if _SPARE.fullmatch(name) and name not in taken]
    return sorted(free, key=lambda name: ([int(n) for n in re.findall(r"\d+", name)], name))


def name_mask_token(folder: Path, token: str) -> None:
    """Record `token` as the mask token in a folder's files, where transformers looks for it."""
    for name in ROLE_FILES:
        path = folder / name
        if path.exists() or name == CONFIG:
            content = {**_read(path), MASK: token}
            write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _value(text: str, key: str) -> Any:
    """Return the value of a key that occurs once, without parsing the rest, which is mostly merges.

    Quotes inside texts are escaped, so a quoted word before a colon is a key.
    """
    found = re.search(rf'"{key}"\s*:\s*', text)
    if found is None:
        raise ValueError(f"tokenizer.json has no {key}")
    return json.JSONDecoder().raw_decode(text, found.end())[0]


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return content if isinstance(content, dict) else {}


def _text(token: Any) -> str | None:
    """Return a token as text; files give it as text or as an object with its `content`."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None
