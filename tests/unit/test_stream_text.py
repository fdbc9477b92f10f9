"""A stream's ids are those that `nemolaunch tokenize` writes for the same rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from stream_support import setup

from nemolaunch.cli.commands.tokenize import main as tokenize
from nemolaunch.stream.reader import Reader
from nemolaunch.stream.text import RowEncoder
from nemolaunch.tokenization.tokenizer import resolve

ROOT = Path(__file__).parents[2]
TOKENIZER = str(ROOT / "examples" / "tokenizer")


@pytest.mark.parametrize("engine", ["hf", "fastokens"])
def test_ids_are_those_of_tokenize(engine: str, tmp_path: Path, tokens_cache: Path) -> None:
    source = ROOT / "examples" / "corpus" / "en.jsonl"
    words = ["--hf-tokenizer", TOKENIZER, "--data-prefix", "a", "--output-dir", str(tmp_path)]
    assert tokenize([*words, "--input-dir", str(source)]) == 0
    written = np.fromfile(tmp_path / "preprocessed" / "a_text_document.bin", np.uint16)
    of = setup(str(source), readers=1, window=1, seq_length=1000, shuffle_files=False)
    spec = resolve(TOKENIZER, tokens_cache)
    samples = Reader(of, 0, RowEncoder(spec, engine))
    made = np.concatenate([s.tokens[:-1] for s, _ in zip(samples, range(150), strict=False)])
    assert np.array_equal(made, written[: len(made)])
