"""The tokens of a tokenizer, their ids and their roles, by transformers' own rule. Standard library only.

`read` follows what transformers does with a `tokenizer.json`: the ids written beside added tokens do not count, each
new token gets the next free id; tokens that are named only in the other files are added too. `len(tokenizer)`,
which NeMo and Megatron-LM take for the size of the vocabulary, is the number of entries.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.system.atomic_files import write_text
from nemolaunch.tokenizer import classes, files

MASK = "mask_token"
# In transformers' order, in which missing tokens are added
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", MASK)
MORE, NAMED = "additional_special_tokens", "extra_special_tokens"
ROLE_FILES = files.CONFIG, files.MAP
# `<|reserved_special_token_7|>` of Llama 3, `<unused7>` of Gemma, `[unused7]` and `[MASK]` of BERT
_SPARE = re.compile(r"[<\[].*(reserved|unused|extra_id|mask).*[>\]]", re.IGNORECASE)
# Classes that are built from the slow form if this is set
_FROM_SLOW = {"LlamaTokenizer": "add_prefix_space"}


@dataclass(frozen=True)
class Vocabulary:
    """All tokens of a tokenizer with their ids, and role (`bos_token`, …) → token for the roles it has."""

    ids: Mapping[str, int]
    roles: Mapping[str, str]

    @property
    def size(self) -> int:
        """Return the number of tokens, as `len(tokenizer)`."""
        return len(self.ids)

    @property
    def max_id(self) -> int:
        """Return the largest id, which is `size` or more if there are gaps between the ids."""
        return max(self.ids.values(), default=-1)

    def id_of(self, role: str) -> int | None:
        """Return the id of the token with a role; None if no token has it."""
        return self.ids.get(self.roles.get(role, ""))

    @property
    def end_id(self) -> int | None:
        """Return the id of the token that ends texts; None if there is none."""
        return self.ids.get(end_token(self.roles) or "")


def read(folder: Path) -> Vocabulary | None:
    """Return the vocabulary of a tokenizer; None if only transformers can tell: see `nemolaunch.tokenizer.library`.

    Raises OSError, ValueError, KeyError or TypeError if there is no usable tokenizer.
    """
    path = folder / "tokenizer.json"
    if not path.exists():
        if not files.defines_tokens(folder):
            raise ValueError(files.none_of_them())
        return None
    name = classes.class_of(folder) or (None if classes.is_told(folder) else classes.GENERIC)
    values, decoder = settings(folder)
    name = classes.GENERIC if classes.is_of_v5(values) else name
    slow = values.get(_FROM_SLOW.get(name or "", "")) is not None
    if name not in classes.ROLES or slow or classes.own_code(folder):
        return None
    return _vocabulary(path.read_text(encoding="utf-8"), {**classes.ROLES[name], **values}, decoder)


def of_backend(text: str, named: Mapping[str, str]) -> Vocabulary:
    """Return the vocabulary of a tokenizer that is complete in the text of one `tokenizer.json`."""
    return _vocabulary(text, named, [])


def _vocabulary(text: str, values: Mapping[str, Any], decoder: Iterable[str]) -> Vocabulary:
    vocab = _value(text, "vocab")
    ids = _Ids(dict(vocab) if isinstance(vocab, dict) else {entry[0]: i for i, entry in enumerate(vocab)})
    for token in (_value(text, "added_tokens") if '"added_tokens"' in text else None) or ():
        ids.add(token["content"])
    padding = _value(text, "padding") if '"padding"' in text else None
    if isinstance(padding, dict):
        values = {"pad_token": padding.get("pad_token"), **values}
    named = {role: content_of(values.get(role)) for role in ROLES}
    for content in [*decoder, *(token for token in named.values() if token), *_others(values)]:
        ids.add(content)
    return Vocabulary(ids.known, {role: token for role, token in named.items() if token})


def settings(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Return what the files say about special tokens, and the tokens to add, in the order in which they are added.

    If `tokenizer_config.json` lists its added tokens, as it does since transformers 4.34, the older files do not
    count; else they precede it.
    """
    values = files.read_json(folder / files.CONFIG)
    listed = values.get("added_tokens_decoder")
    if listed is not None:
        return values, [str(content_of(listed[number])) for number in sorted(listed, key=int)]
    older = files.read_json(folder / files.MAP)
    more = [content_of(t) for t in (*(values.get(MORE) or ()), *(older.get(MORE) or ()))]
    values = {**values, **older, MORE: [token for token in dict.fromkeys(more) if token]}
    added = files.read_json(folder / files.ADDED)
    return values, sorted(added, key=lambda token: int(added[token]))


def _others(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the special tokens that have no standard role."""
    named = values.get(NAMED) or {}
    extra = named.values() if isinstance(named, dict) else named  # a list in the files of transformers 5
    for token in (*(values.get(MORE) or ()), *extra):
        if content := content_of(token):
            yield content


class _Ids:
    """Tokens with their ids, to which tokens are added as the tokenizers library does."""

    def __init__(self, base: dict[str, int]) -> None:
        self.known, self._size, self._last = base, len(base), -1

    def add(self, content: str) -> None:
        if not content:
            return
        if content not in self.known:
            self.known[content] = max(self._size, self._last + 1)
        self._last = max(self._last, self.known[content])


def end_token(named: Mapping[str, str]) -> str | None:
    """Return the token that ends texts, given role → token: like NeMo's tokenizer, the separator if none does."""
    return named.get("eos_token") or named.get("sep_token")


def spare(names: Iterable[str], taken: Iterable[str]) -> list[str]:
    """Return tokens without a role whose names say that they are reserved, in the order of their numbers."""
    free = [name for name in names if _SPARE.fullmatch(name) and name not in taken]
    return sorted(free, key=lambda name: ([int(n) for n in re.findall(r"\d+", name)], name))


def name_mask_token(folder: Path, token: str) -> None:
    """Record `token` as the mask token in a folder's files, where transformers looks for it."""
    for name in ROLE_FILES:
        path = folder / name
        if path.exists() or name == files.CONFIG:
            content = {**files.read_json(path), MASK: token}
            write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _value(text: str, key: str) -> Any:
    """Return the value of a key that occurs once, without parsing the rest, which is mostly merges.

    Quotes inside texts are escaped, so a quoted word before a colon is a key.
    """
    found = re.search(rf'"{key}"\s*:\s*', text)
    if found is None:
        raise ValueError(f"tokenizer.json has no {key}")
    return json.JSONDecoder().raw_decode(text, found.end())[0]


def content_of(token: Any) -> str | None:
    """Return a token as text; files give it as text or as an object with its `content`."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None
