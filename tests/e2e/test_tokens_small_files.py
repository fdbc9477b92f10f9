"""Small files are put together into pieces; each keeps its key, its part of the split and its line numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import xxhash
from tokens_support import pair, variant, write_jsonl, write_reference

from nemolaunch.cli.commands.tokenize import main
from nemolaunch.tokenization.pieces import cut
from nemolaunch.tokenization.sources import InputFile


def test_keys_splits_and_line_numbers_of_small_files(tmp_path: Path, tokens_cache: Path) -> None:
    """Of 30 files every third has another key and every fifth is validation data; one of them has bad lines."""
    tokenizer = variant("small", tmp_path / "tokenizer")
    parts: dict[str, list[str]] = {"train": [], "validation": []}
    for i in range(30):
        made = [f"file {i} document {j} 中文" for j in range(i % 4)]  # some files are empty
        name = f"{i:02d}-{'held' if i % 5 == 0 else 'kept'}-{'body' if i % 3 == 0 else 'text'}.jsonl"
        path = write_jsonl(tmp_path / "in" / name, made, "body" if i % 3 == 0 else "text")
        parts["validation" if i % 5 == 0 else "train"] += made
        if i == 17:
            path.write_text(f'\ufeff{{"text": "first"}}\n\nbad\n{path.read_text()}{{"text": 5}}')
            parts["train"] = [*parts["train"][: -len(made)], "first", *made]
    words = ["--hf-tokenizer", str(tokenizer), "--data-prefix", "data", "--input-dir", str(tmp_path / "in")]
    words += ["--text-key-of", "*-body.jsonl=body", "--validation-files", "*-held-*", "--on-error", "skip"]
    assert main([*words, "--output-dir", str(tmp_path), "--engine", "hf", "--workers", "2"]) == 0
    made_ = tmp_path / "preprocessed"
    for part, name in (("train", "data_text_document"), ("validation", "data_validation_text_document")):
        write_reference(tmp_path / part, tokenizer, parts[part])
        assert pair(made_ / name) == pair(tmp_path / part)
    rejects = [json.loads(line) for line in (made_ / "data_rejects.jsonl").read_text().splitlines()]
    assert [(Path(r["file"]).name, r["line"]) for r in rejects] == [("17-kept-text.jsonl", n) for n in (3, 5)]
    manifest = json.loads((made_ / "data_text_document.manifest.json").read_text())
    assert manifest["blank_lines"] == 1
    for source in manifest["sources"]:
        assert source["xxh3_128"] == xxhash.xxh3_128(Path(source["path"]).read_bytes()).hexdigest()


def test_texts_that_are_validation_data(tmp_path: Path, tokens_cache: Path) -> None:
    tokenizer = variant("small", tmp_path / "tokenizer")
    (tmp_path / "in").mkdir()
    for i in range(8):
        (tmp_path / "in" / f"{i}.txt").write_text(f"text {i}")
    words = ["--hf-tokenizer", str(tokenizer), "--data-prefix", "data", "--input-dir", str(tmp_path / "in")]
    words += ["--validation-files", "[25].txt", "--output-dir", str(tmp_path), "--engine", "hf"]
    assert main(words) == 0
    write_reference(tmp_path / "train", tokenizer, [f"text {i}" for i in (0, 1, 3, 4, 6, 7)])
    write_reference(tmp_path / "validation", tokenizer, ["text 2", "text 5"])
    assert pair(tmp_path / "preprocessed" / "data_text_document") == pair(tmp_path / "train")
    held_out = tmp_path / "preprocessed" / "data_validation_text_document"
    assert pair(held_out) == pair(tmp_path / "validation")


@pytest.mark.parametrize(("number", "expected"), [(1, 1), (100, 1), (100_000, 25)])
def test_pieces_of_small_files(number: int, expected: int, tmp_path: Path) -> None:
    """A large file or a compressed one between them ends a piece, because documents stay in order."""
    small = [InputFile(f"/in/{i}", "jsonl", 100, 0) for i in range(number)]
    assert len(list(cut(small, 1 << 24, tmp_path, 0))) == expected
    large = InputFile("/in/large", "jsonl", 1 << 22, 0)
    pieces = list(cut([*small, large, *small], 1 << 24, tmp_path, 0))
    assert [piece.number for piece in pieces] == list(range(2 * expected + 1))
    assert pieces[expected].paths == ("/in/large",)
    assert [piece.place_of(-1) for piece in pieces][-1] == 2 * number
