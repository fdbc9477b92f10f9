"""Small tokenizer folders in the forms that people have, for comparisons with transformers."""

from __future__ import annotations

import base64
import functools
import io
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

WORDS = ["<unk>", "<s>", "</s>", *"abcdefgh", "ab", "cd"]
CORPUS = ["the quick brown fox jumps over the lazy dog", "one two three four five", "a b c d e f g h"] * 40
PATTERN = (  # of Llama 3, from Meta's tokenizer.py
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)

Make = Callable[[Path], None]


def put(folder: Path, name: str, content: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def fast_json(words: list[str], added: list[tuple[int, str]] = [], *, kind: str = "BPE") -> dict[str, Any]:  # noqa: B006
    """A `tokenizer.json` with these words as its base vocabulary."""
    vocab = {word: number for number, word in enumerate(words)}
    model: dict[str, Any] = {"type": kind, "vocab": vocab, "unk_token": "<unk>"}
    if kind == "BPE":
        model = {**model, "merges": [["a", "b"], ["c", "d"]], "dropout": None, "fuse_unk": False}
    elif kind == "Unigram":
        model = {"type": kind, "vocab": [[word, -float(i)] for i, word in enumerate(words)], "unk_id": 0}
    elif kind == "WordPiece":
        model = {**model, "continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    tokens = [
        {"id": number, "content": word, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for number, word in added
    ]  # fmt: skip
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens, "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None, "model": model,
    }  # fmt: skip


def fast(
    own: dict[str, Any],
    /,
    *,
    added: list[tuple[int, str]] = [],  # noqa: B006
    kind: str = "BPE",
    vocab: dict[str, int] | None = None,
    top: dict[str, Any] | None = None,
    **files: Any,
) -> Make:
    """A folder with a `tokenizer.json`; `files`: other files by name without `.json`."""

    def make(folder: Path) -> None:
        content = fast_json(WORDS, added, kind=kind)
        if vocab is not None:
            content["model"]["vocab"] = vocab
        content |= top or {}
        put(folder, "tokenizer.json", content)
        put(folder, "tokenizer_config.json", own)
        for name, value in files.items():
            put(folder, f"{name}.json", value)

    return make


@functools.cache
def sentencepiece_model(kind: str = "bpe", **options: Any) -> bytes:
    """A small SentencePiece model, trained here."""
    import sentencepiece

    out = io.BytesIO()
    given = {"byte_fallback": True, "vocab_size": 320, "hard_vocab_limit": False, "pad_id": -1} | options
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=out, model_type=kind, minloglevel=2, **given
    )
    return out.getvalue()


def sentencepiece_folder(name: str, config: dict[str, Any] | None, kind: str = "bpe", **files: Any) -> Make:
    def make(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(sentencepiece_model(kind))
        if config is not None:
            put(folder, "tokenizer_config.json", config)
        for other, value in files.items():
            put(folder, f"{other}.json", value)

    return make


def gpt2(folder: Path) -> None:
    words = ["<|endoftext|>", *"abcdefghijklmnopqrstuvwxyz", "Ġ", "th", "the", "Ġl"]
    put(folder, "vocab.json", {word: i for i, word in enumerate(words)})
    (folder / "merges.txt").write_text("#version: 0.2\nt h\nth e\nĠ l\n")
    put(folder, "tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer", "pad_token": "<|pad|>"})


def bert(folder: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "lazy", "dog", "jump", "##s"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    put(folder, "tokenizer_config.json", {"tokenizer_class": "BertTokenizer"})
    put(folder, "added_tokens.json", {"[NEW]": 10})


@functools.cache
def tiktoken_ranks() -> dict[bytes, int]:
    """The 256 bytes and some merges, as tiktoken's own trainer finds them."""
    found = {bytes([byte]): byte for byte in range(256)}
    words = [
        word.encode() for line in CORPUS[:3] for word in (" " + line).replace(" ", "\0 ").split("\0") if word
    ]
    parts = [[bytes([byte]) for byte in word] for word in words]
    while len(found) < 300:
        pairs = [pair for word in parts for pair in pairwise(word)]
        if not pairs:
            break
        best = max(sorted(set(pairs)), key=pairs.count)
        found[best[0] + best[1]] = len(found)
        parts = [_merged(word, best) for word in parts]
    return found


def _merged(word: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    out: list[bytes] = []
    for part in word:
        if out and (out[-1], part) == pair:
            out[-1] += part
        else:
            out.append(part)
    return out


def tiktoken_file(ranks: dict[bytes, int]) -> bytes:
    return b"".join(
        base64.b64encode(token) + b" " + str(rank).encode() + b"\n" for token, rank in ranks.items()
    )
