"""The sample corpus and its tokenizer: what a first run, and most tests, are made of."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
CORPUS = EXAMPLES / "corpus"
TOKENIZER = EXAMPLES / "tokenizer"
FILES = sorted(CORPUS.glob("*.jsonl"))
BIBLE = EXAMPLES / "bible"
TEXTS = [*FILES, BIBLE / "kjv.jsonl"]
MARKUP = re.compile(r"<[a-z/]|&(amp|lt|gt|quot|nbsp|#\d+);|https?:|Gutenberg|[{}\\|_*#~^]")


def documents(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(TOKENIZER)


def test_both_languages_are_there_in_a_size_fit_for_a_checkout() -> None:
    assert [path.name for path in FILES] == ["en.jsonl", "zh_hant.jsonl"]
    for path in FILES:
        assert 1e6 < path.stat().st_size < 3e6


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_each_line_is_one_document_of_plain_text(path: Path) -> None:
    for line in path.read_text(encoding="utf-8").splitlines():
        assert set(json.loads(line)) == {"text"}
        assert "\\u" not in line, "written as characters, not as escapes"
    texts = documents(path)
    assert len(set(texts)) == len(texts)
    for text in texts:
        assert text == text.strip()
        assert len(text) >= 20
        assert not MARKUP.search(text), text[:80]
        assert {char for char in text if unicodedata.category(char).startswith("C")} <= {"\n"}


def test_the_chinese_is_in_traditional_script() -> None:
    text = "".join(documents(CORPUS / "zh_hant.jsonl"))
    simplified, traditional = "们这国说东车马见长门问闻鸟风飞书", "們這國說東車馬見長門問聞鳥風飛書"
    assert not set(simplified) & set(text)
    assert len(set(traditional) & set(text)) > len(traditional) - 3
    chinese = sum("\u3400" <= char <= "\u9fff" for char in text)
    assert chinese > 0.75 * len(text)


def test_the_sources_name_each_work_and_the_number_of_its_documents() -> None:
    sources = (CORPUS / "SOURCES.md").read_text(encoding="utf-8")
    for path in FILES:
        assert f"| `{path.name}` | {len(documents(path)):,} |" in sources
    poets = {text.split("\n")[1] for text in documents(CORPUS / "zh_hant.jsonl")} - {""}
    for poet in poets:
        assert poet in sources


def test_the_bible_has_all_chapters_and_verses() -> None:
    # The usual counts of the Protestant canon, as in https://en.wikipedia.org/wiki/Chapters_and_verses_of_the_Bible
    chapters = documents(BIBLE / "kjv.jsonl")
    assert len(chapters) == 1189
    assert sum(len(chapter.split("\n")) for chapter in chapters) == 31102
    assert not any(char.isdigit() for chapter in chapters for char in chapter)


def test_the_tokenizer_has_the_size_and_special_tokens_it_claims(tokenizer: Any) -> None:
    assert len(tokenizer) == 8192
    assert (tokenizer.bos_token, tokenizer.bos_token_id) == ("<|begin_of_text|>", 0)
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|end_of_text|>", 1)
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<|pad|>", 2)
    assert tokenizer.convert_tokens_to_ids("<|reserved_special_token_7|>") == 10


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_document_comes_back_from_its_tokens(tokenizer: Any, path: Path) -> None:
    texts = documents(path)
    tokens = tokenizer(texts).input_ids
    assert tokenizer.batch_decode(tokens) == texts
    assert min(min(document) for document in tokens) > 10, "no special token is added"


@pytest.mark.parametrize(
    "text", ["", " ", "🦙", "caf\u00e9 \u0301", "这也行", "a\r\n\tb  c\n\n", "\x00\x07", "12345"]
)
def test_text_unlike_the_corpus_comes_back_too(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text).input_ids) == text


@pytest.mark.parametrize(
    ("folder", "options"),
    [(TOKENIZER, []), (BIBLE / "tokenizer", ["--corpus", BIBLE, "--vocab-size", "4096"])],
    ids=["sample", "bible"],
)
def test_training_again_gives_the_same_files(folder: Path, options: list[Any], tmp_path: Path) -> None:
    command = [sys.executable, EXAMPLES / "train_tokenizer.py", "--output", tmp_path, *options]
    subprocess.run(command, check=True, capture_output=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name
