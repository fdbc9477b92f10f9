"""Long texts are cut only where the result does not change."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from tokens_support import EOD, variant

from nemolaunch.tokenization import engines, long_text
from nemolaunch.tokenization.tokenizer import resolve

CHANCE = random.Random(9)


def drawn(alphabet: str | list[str], count: int) -> str:
    return "".join(CHANCE.choice(alphabet) for _ in range(count))


TEXTS = {
    "prose": drawn(["word ", "Another", " line\n", "don't ", "\n\n", "  "], 8_000),
    "code": drawn(["x = 1\n", "    if a:\n", "\t", "foo(bar)", " != ", "'s'"], 8_000),
    "chinese": drawn("天地玄黃，宇宙洪荒。\n", 16_000),
    "base64": drawn("ABCDabcd0123+/", 16_000),
    "digits": drawn("0123456789", 16_000),
    "one letter": "a" * 16_000,
    "spaces": drawn(" \n\t", 16_000),
    "emoji and marks": drawn(["🙂", "👍🏽", "e\u0301", "\u200d", " "], 8_000),
    "special tokens": drawn([EOD, "<|begin|>", "<|e", " ", "x"], 6_000),
}


@pytest.mark.parametrize(
    ("kind", "engine"),
    [("bos", "hf"), *((kind, "fastokens") for kind in ("small", "bos", "prefix", "nfc", "merged"))],
)
def test_the_ids_are_those_of_the_whole_text(
    kind: str, engine: str, tmp_path: Path, tokens_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stride is so short that every text is cut wherever possible."""
    monkeypatch.setattr(long_text, "STRIDE", 2_000)
    monkeypatch.setattr(long_text, "REACH", 3_000)
    spec = resolve(str(variant(kind, tmp_path / kind)), tokens_cache / "nemolaunch")
    encode = engines.load(engine, spec)
    long = long_text.LongTexts(spec, encode)
    for name, text in TEXTS.items():
        pieces = list(long.ids(text))
        assert np.array_equal(np.concatenate(pieces), encode([text], True)[0]), name


def test_texts_without_words_are_cut_too(
    tmp_path: Path, tokens_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise memory would grow with their length. A run of one kind of character has no usable border."""
    monkeypatch.setattr(long_text, "STRIDE", 2_000)
    monkeypatch.setattr(long_text, "REACH", 3_000)
    spec = resolve(str(variant("small", tmp_path / "small")), tokens_cache / "nemolaunch")
    long = long_text.LongTexts(spec, engines.load("hf", spec))
    counts = {name: len(list(long.ids(text))) for name, text in TEXTS.items()}
    for name in ("prose", "code", "base64", "chinese", "special tokens"):
        assert counts[name] >= 4, name
    assert counts["one letter"] == counts["digits"] == 1
