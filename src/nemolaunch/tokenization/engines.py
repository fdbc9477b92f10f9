"""Tokenizer libraries. `hf` is the reference; the others must be proven identical before use."""

from __future__ import annotations

import functools
import importlib.util
from typing import TYPE_CHECKING, Any, TypeAlias

from nemolaunch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from tokenizers import Tokenizer

    from nemolaunch.tokenization.tokenizer import TokenizerSpec

Array: TypeAlias = "np.ndarray[Any, Any]"
# (texts, whether to add special tokens) → (concatenated ids of all texts, number of ids of each)
Encode: TypeAlias = "Callable[[list[str], bool], tuple[Array, Array]]"

# Fastest first; `--engine auto` tries them in this order.
FAST = ("fastokens", "gigatoken")
ENGINES = ("hf", *FAST)


def installed(engine: str) -> bool:
    """Return whether the library is installed."""
    return importlib.util.find_spec("tokenizers" if engine == "hf" else engine) is not None


def load(engine: str, spec: TokenizerSpec) -> Encode:
    """Return a function that encodes texts.

    It is `encode(texts, add_special_tokens) -> (uint32 ids [sum], int64 lengths [len(texts)])`.

    Raises whatever the library raises for a tokenizer it cannot load.
    """
    makers = {"hf": _hf, "fastokens": _fastokens, "gigatoken": _gigatoken}
    if engine not in makers:
        raise UsageError(f"--engine {engine}: use one of {', '.join(ENGINES)}, auto")
    return makers[engine](spec)


def _hf(spec: TokenizerSpec) -> Encode:
    import numpy as np

    tokenizer = spec.load()

    def encode(texts: list[str], special: bool) -> tuple[Array, Array]:
        encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=special)
        lengths = np.fromiter((len(e) for e in encodings), np.int64, len(encodings))
        ids = np.empty(int(lengths.sum()), np.uint32)
        at = 0
        for encoding, length in zip(encodings, lengths.tolist(), strict=True):
            ids[at : at + length] = encoding.ids
            at += length
        return ids, lengths

    return encode


@functools.lru_cache(maxsize=1)
def fastokens_tokenizer(backend: str) -> Any:
    """Return the library's tokenizer; the one loaded last is kept, for processes forked from this one."""
    from fastokens import Tokenizer as Fast

    return Fast.from_json_str(backend)


def _fastokens(spec: TokenizerSpec) -> Encode:
    import numpy as np

    tokenizer = fastokens_tokenizer(spec.backend)
    split = spec.split_special

    def encode(texts: list[str], special: bool) -> tuple[Array, Array]:
        ids, offsets = tokenizer.encode_batch_flat(
            texts, add_special_tokens=special, split_special_tokens=split
        )
        return np.frombuffer(ids, np.uint32), np.diff(np.frombuffer(offsets, np.uint64).astype(np.int64))

    return encode


def _gigatoken(spec: TokenizerSpec) -> Encode:
    import tempfile
    from pathlib import Path

    import numpy as np
    from gigatoken import Tokenizer as Giga

    if spec.split_special:
        raise ValueError("it always recognises special tokens")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_text(spec.backend, encoding="utf-8")
        backend = Giga(str(path))._backend
    added = with_special_tokens(spec)

    def encode(texts: list[str], special: bool) -> tuple[Array, Array]:
        layout = backend.encode_batch(texts, parallel=False).layout
        offsets = np.asarray(layout.offsets.data).astype(np.int64)
        ids = np.asarray(layout.content.data)[offsets[0] : offsets[-1]]
        return (added if special else _as_is)(ids, np.diff(offsets))

    return encode


def _as_is(ids: Array, lengths: Array) -> tuple[Array, Array]:
    return ids, lengths


def with_special_tokens(spec: TokenizerSpec) -> Callable[[Array, Array], tuple[Array, Array]]:
    """Return a function that adds what the tokenizer's post-processor adds, for a library that ignores it."""
    import numpy as np

    before, after = surrounding(spec.load())
    if not before and not after:
        return _as_is
    extra = len(before) + len(after)

    def add(ids: Array, lengths: Array) -> tuple[Array, Array]:
        longer = lengths + extra
        ends = np.cumsum(longer)
        out = np.empty(len(ids) + extra * len(lengths), np.uint32)
        free = np.ones(len(out), bool)
        for shift, token in [(i, t) for i, t in enumerate(before)]:
            at = ends - longer + shift
            out[at], free[at] = token, False
        for shift, token in [(len(after) - i, t) for i, t in enumerate(after)]:
            at = ends - shift
            out[at], free[at] = token, False
        out[free] = ids
        return out, longer

    return add


def surrounding(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Return the ids that the post-processor adds before and after every text.

    Raises ValueError if it does more than that.
    """
    plain = tokenizer.encode("a", add_special_tokens=False).ids
    full = tokenizer.encode("a").ids
    for start in range(len(full) - len(plain) + 1):
        if full[start : start + len(plain)] == plain:
            return full[:start], full[start + len(plain) :]
    raise ValueError("its post-processor does more than surround a text with special tokens")
