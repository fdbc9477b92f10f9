"""One list of tokenizer files: what passes the check is copied, loads from the copy, and keeps its digest."""

from __future__ import annotations

import functools
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.system import hub
from nemolaunch.tokenizer import files, vocabulary
from nemolaunch.tokenizer.fingerprint import tokenizer_digest
from nemolaunch.tokenizer.inspection import look_at_tokenizer

ROOT = Path(__file__).parents[2]
CORPUS = ["the quick brown fox jumps over the lazy dog", "one two three four five", "a b c d e f g h"] * 40
TEXT = "the lazy dog jumps"


@functools.cache
def sentencepiece_model(kind: str) -> bytes:
    """A small SentencePiece model, trained here."""
    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=out, vocab_size=60, model_type=kind, minloglevel=2,
        byte_fallback=False, pad_id=3, hard_vocab_limit=False,
    )  # fmt: skip
    return out.getvalue()


def write_config(folder: Path, tokenizer_class: str) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": tokenizer_class}))


def with_sentencepiece(name: str, tokenizer_class: str, kind: str = "unigram") -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).write_bytes(sentencepiece_model(kind))
        write_config(folder, tokenizer_class)

    return make


def with_tokenizer_json(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(ROOT / "examples" / "tokenizer" / name, folder / name)


def with_vocab_json(folder: Path) -> None:
    words = ["<|endoftext|>", *"abcdefghijklmnopqrstuvwxyz", "Ġ", "th", "the", "Ġl"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\nt h\nth e\nĠ l\n")
    write_config(folder, "GPT2Tokenizer")


def with_vocab_txt(folder: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "lazy", "dog", "jump", "##s"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    write_config(folder, "BertTokenizer")


def with_model_config(folder: Path) -> None:
    """As GPT-2 on the hub: the class of the tokenizer follows from the model's configuration alone."""
    with_vocab_json(folder)
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 1024}')
    (folder / "config.json").write_text('{"model_type": "gpt2"}')


LOADED = {
    "tokenizer.json": with_tokenizer_json,
    "tokenizer.model": with_sentencepiece("tokenizer.model", "LlamaTokenizer", "bpe"),
    "spiece.model": with_sentencepiece("spiece.model", "T5Tokenizer"),
    "sentencepiece.bpe.model": with_sentencepiece("sentencepiece.bpe.model", "XLMRobertaTokenizer"),
    "spm.model": with_sentencepiece("spm.model", "DebertaV2Tokenizer"),
    "vocab.json": with_vocab_json,
    "vocab.txt": with_vocab_txt,
    "config.json": with_model_config,
}


@pytest.mark.parametrize("kind", LOADED)
def test_what_passes_the_check_loads_from_its_copy(kind: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    source, copy = tmp_path / "source", tmp_path / "copy"
    source.mkdir()
    LOADED[kind](source)
    (source / "sub").mkdir()
    (source / "model.safetensors").touch()
    assert look_at_tokenizer(str(source)).error is None
    files.copy_files(source, copy)
    assert not (copy / "sub").exists()
    assert not (copy / "model.safetensors").exists()
    # fast forms of SentencePiece models need a protobuf that fits the library, slow ones do not
    fast = not any(copy.glob("*.model"))
    loaded = [AutoTokenizer.from_pretrained(folder, use_fast=fast)(TEXT) for folder in (source, copy)]
    assert loaded[0] == loaded[1]
    assert len(loaded[1]["input_ids"]) > 1
    assert tokenizer_digest(copy) == tokenizer_digest(source)


@pytest.mark.parametrize("name", ["tekken.json", "tiktoken.model", "sentencepiece.model", "qwen.tiktoken"])
def test_kinds_that_need_other_libraries_are_copied_too(name: str, tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.mkdir()
    (source / name).write_bytes(b"tokens")
    (source / "tokenization_own.py").write_text("class Own: ...")
    assert vocabulary.read(source) is None
    files.copy_files(source, copy)
    assert sorted(p.name for p in copy.iterdir()) == sorted([name, "tokenization_own.py"])
    before = tokenizer_digest(source)
    (source / name).write_bytes(b"other tokens")
    assert tokenizer_digest(source) != before


def test_the_models_config_comes_along_only_where_it_names_the_class(tmp_path: Path) -> None:
    with_vocab_json(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    files.copy_files(tmp_path, tmp_path / "a")
    assert not (tmp_path / "a" / "config.json").exists()
    files.copy_files(tmp_path, tmp_path / "b", config=True)
    assert (tmp_path / "b" / "config.json").exists()


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    """Also one with files that only belong to a tokenizer, and one whose tokenizer is in a sub-folder."""
    (tmp_path / "tokenizer_config.json").write_text("{}")
    (tmp_path / "original").mkdir()
    (tmp_path / "original" / "tokenizer.model").touch()
    assert not files.defines_tokens(tmp_path)
    assert "none of tokenizer.json, tokenizer.model, spiece.model" in str(
        look_at_tokenizer(str(tmp_path)).error
    )
    with pytest.raises(UsageError, match="has no tokenizer: none of"):
        files.copy_files(tmp_path, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_digests_recorded_beside_data_still_hold(tmp_path: Path) -> None:
    """Computed before there was one list; files that it added do not count beside one that was known."""
    known = {
        "tokenizer.json": "{}", "tokenizer_config.json": '{"chat_template": "x", "a": 1}', "vocab.json": "{}",
        "merges.txt": "a b\n", "special_tokens_map.json": "{}", "added_tokens.json": "{}", "vocab.txt": "a\n",
        "tokenizer.model": "m", "spiece.model": "s", "sentencepiece.bpe.model": "b",
    }  # fmt: skip
    for name, text in known.items():
        (tmp_path / name).write_text(text)
    expected = "7b86d03b20f690111b6239b5045d748128019ea10975b29e306ad7a10ccc3173"
    assert tokenizer_digest(tmp_path) == expected
    for name in ("tekken.json", "qwen.tiktoken", "chat_template.jinja", "tokenization_own.py", "config.json"):
        (tmp_path / name).write_text("more")
    assert tokenizer_digest(tmp_path) == expected
    assert (
        tokenizer_digest(ROOT / "examples" / "tokenizer")
        == "0a1b1c3c46f4bd21605b0f483feda4d804b39a88c16154f95c382d814a5a2096"
    )


def test_a_snapshot_in_the_cache_is_found_by_any_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--org--t5"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    assert look_at_tokenizer("org/t5").folder is None
    (snapshot / "spiece.model").touch()
    assert look_at_tokenizer("org/t5").folder == str(snapshot)


def test_fetching_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot(repository: str, patterns: list[str], token: str | None) -> Path:
        assert (repository, token) == ("org/model", "secret")
        assert {"spiece.model", "tekken.json", "config.json"} <= set(patterns)
        return tmp_path

    monkeypatch.setattr(hub, "snapshot", snapshot)
    with pytest.raises(NemolaunchError, match="org/model has no tokenizer: none of"):
        files.fetch("org/model", "secret")
    (tmp_path / "spiece.model").touch()
    assert files.fetch("org/model", "secret") == tmp_path
    monkeypatch.undo()
    with pytest.raises(NemolaunchError, match="cannot fetch no such name"):
        files.fetch("no such name")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(NemolaunchError, match=r"needs huggingface_hub.*: .*install"):
        files.fetch("org/model")
