"""Tokenizers as people have them: one test a public report, with its number, the right value and its source."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizer_folders import (
    CORPUS,
    PATTERN,
    Make,
    fast,
    put,
    sentencepiece_folder,
    tiktoken_file,
    tiktoken_ranks,
)
from tokens_support import write_jsonl

from nemolaunch.cli.commands.pretrain import main as pretrain
from nemolaunch.cli.commands.tokenize import main
from nemolaunch.errors import NemolaunchError
from nemolaunch.tokenization.tokenizer import TokenizerSpec, resolve
from nemolaunch.tokenizer import completion, library
from nemolaunch.tokenizer.fingerprint import tokenizer_digest, tokens_digest
from nemolaunch.tokenizer.inspection import look_at_tokenizer

EXAMPLE = Path(__file__).parents[2] / "examples" / "tokenizer"
TEXTS = [*CORPUS[:3], "  two  spaces", "naïve 清晨 🙂\n\ttab", "one"]
GENERIC = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}


@pytest.fixture
def spec_of(tokens_cache: Path) -> Any:
    """The tokenizer that tokenising uses."""

    def found(folder: Path) -> TokenizerSpec:
        return resolve(str(folder), tokens_cache)

    return found


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(sentencepiece_folder("tokenizer.model", None), id="bpe"),
        pytest.param(sentencepiece_folder("spiece.model", {"eos_token": "</s>"}, "unigram"), id="unigram"),
    ],
)
def test_a_sentencepiece_model_alone(make: Make, tmp_path: Path, spec_of: Any) -> None:
    """openlm-research/open_llama#69: the ids are those of sentencepiece's own `encode`."""
    import sentencepiece

    make(tmp_path / "t")
    (file,) = (tmp_path / "t").glob("*.model")
    reference = sentencepiece.SentencePieceProcessor(model_file=str(file))
    spec = spec_of(tmp_path / "t")
    encode = spec.load().encode
    assert [encode(text).ids for text in TEXTS] == reference.encode(TEXTS)
    assert (spec.vocab_size, spec.eod_id) == (reference.get_piece_size(), reference.eos_id())
    seen = look_at_tokenizer(str(tmp_path / "t"))
    assert (seen.vocab_size, seen.end_id, seen.digest) == (spec.vocab_size, spec.eod_id, spec.digest)
    assert seen.completed


def test_a_sentencepiece_model_with_a_class(tmp_path: Path, spec_of: Any) -> None:
    """huggingface/transformers#36322: as the slow `LlamaTokenizer`, which asks sentencepiece for the ids."""
    from transformers import LlamaTokenizer

    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "legacy": False}
    sentencepiece_folder("tokenizer.model", config)(tmp_path / "t")
    slow = LlamaTokenizer.from_pretrained(tmp_path / "t")
    spec = spec_of(tmp_path / "t")
    texts = CORPUS[:3]
    assert [spec.load().encode(text).ids for text in texts] == [slow(text).input_ids for text in texts]
    assert spec.vocab_size == len(slow)
    assert completion.reason(tmp_path / "t") is None


def test_the_tokenizer_model_of_llama_3(tmp_path: Path, spec_of: Any) -> None:
    """google/sentencepiece#1054, meta-llama/llama3#60: tiktoken's ids with Meta's pattern, then special ones."""
    import tiktoken

    ranks = tiktoken_ranks()
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "tokenizer.model").write_bytes(tiktoken_file(ranks))
    n = len(ranks)
    # by Meta's tokenizer.py: <|begin_of_text|> is the first, <|end_of_text|> the second, <|eot_id|> the tenth
    known = {"<|begin_of_text|>": n, "<|end_of_text|>": n + 1, "<|eot_id|>": n + 9}
    reference = tiktoken.Encoding("llama3", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=known)
    spec = spec_of(tmp_path / "t")
    assert (spec.vocab_size, spec.eod_id) == (n + 256, n + 1)
    for text in [*TEXTS, "a<|eot_id|>b", "it's 12345 I'LL"]:
        assert spec.load().encode(text).ids == [n, *reference.encode(text, allowed_special="all")]
    assert look_at_tokenizer(str(tmp_path / "t")).vocab_size == n + 256
    (tmp_path / "t" / "tokenizer.model").write_bytes(tiktoken_file({**ranks, b"zz": n + 5}))
    with pytest.raises(NemolaunchError, match=r"is damaged: its .* ranks are not 0, 1, 2"):
        library.load(tmp_path / "t")


def test_pad_in_added_tokens_alone(
    tmp_path: Path, tokens_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """huggingface/transformers#25041, #24899: transformers and NeMo count 8193; planning must not refuse the data."""
    folder = tmp_path / "t"
    shutil.copytree(EXAMPLE, folder)
    put(folder, "added_tokens.json", {"[PAD]": 8192})
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        put(folder, name, {**json.loads((folder / name).read_text()), "pad_token": "[PAD]"})
    write_jsonl(tmp_path / "a.jsonl", [f"page {i} about hills " * 9 for i in range(200)])
    words = ["--hf-tokenizer", str(folder), "--data-prefix", "a", "--output-dir", str(tmp_path)]
    assert main([*words, "--input-dir", str(tmp_path / "a.jsonl"), "--engine", "hf", "--workers", "1"]) == 0
    prefix = tmp_path / "preprocessed" / "a_text_document"
    recorded = json.loads(Path(f"{prefix}.manifest.json").read_text())["tokenizer"]
    assert recorded["vocab_size"] == look_at_tokenizer(str(folder)).vocab_size == 8193
    run = ["-M", "nano", "--dataset-dir", str(prefix), "--max-steps", "2", "-gbs", "2", "--seq-length", "64"]
    assert pretrain([*run, "--dry-run"]) == 0, capsys.readouterr().out


def test_no_end_of_text(tmp_path: Path, tokens_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """NVIDIA/Megatron-LM#1774: refused with the flag that names one; with it, tokenising works."""
    fast({"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"})(tmp_path / "t")
    write_jsonl(tmp_path / "a.jsonl", ["a b", "c"])
    words = ["--hf-tokenizer", str(tmp_path / "t"), "--data-prefix", "a", "--output-dir", str(tmp_path)]
    words += ["--input-dir", str(tmp_path / "a.jsonl"), "--engine", "hf", "--workers", "1"]
    assert main(words) == 2
    assert "names no end-of-text token; set one with --eod-token (it has <pad>)" in capsys.readouterr().err
    assert main([*words, "--eod-token", "<pad>"]) == 0


def test_files_of_transformers_5(tmp_path: Path, spec_of: Any) -> None:
    """modelscope/ms-swift#8186, ml-explore/mlx-lm#661: transformers 4 fails at a list of `extra_special_tokens`."""
    more = {"tokenizer_class": "TokenizersBackend", "extra_special_tokens": ["<x>"], "backend": "tokenizers"}
    fast({**GENERIC, **more})(tmp_path / "new")
    fast({**GENERIC, "additional_special_tokens": ["<x>"]})(tmp_path / "old")
    new, old = spec_of(tmp_path / "new"), spec_of(tmp_path / "old")
    assert (new.vocab_size, new.eod_id) == (old.vocab_size, old.eod_id)
    assert new.load().encode("ab <x> c").ids == old.load().encode("ab <x> c").ids
    assert look_at_tokenizer(str(tmp_path / "new")).vocab_size == new.vocab_size


def test_a_completed_copy_is_the_same_tokenizer(tmp_path: Path) -> None:
    """A run keeps a completed copy, which must count as the tokenizer that its data were made with."""
    from transformers import AutoTokenizer

    sentencepiece_folder("tokenizer.model", None)(tmp_path / "t")
    completion.copy(tmp_path / "t", tmp_path / "copy")
    assert tokenizer_digest(tmp_path / "copy") == tokenizer_digest(tmp_path / "t")
    assert tokens_digest(tmp_path / "copy") == tokens_digest(tmp_path / "t")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "copy")
    assert (len(loaded), loaded.eos_token) == (len(library.load(tmp_path / "t")), "</s>")
    assert completion.reason(tmp_path / "copy") is None


def test_nothing_is_asked_on_the_terminal(
    tmp_path: Path, tokens_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """transformers asks whether to run a folder's code; here that is `--trust-remote-code`, in every command."""
    ran = tmp_path / "ran"
    fast({**GENERIC, "tokenizer_class": "Own", "auto_map": {"AutoTokenizer": [None, "own.Own"]}})(
        tmp_path / "t"
    )
    (tmp_path / "t" / "own.py").write_text(
        f"open({str(ran)!r}, 'w').close()\nfrom transformers import PreTrainedTokenizerFast\n"
        "class Own(PreTrainedTokenizerFast): ...\n"
    )
    write_jsonl(tmp_path / "a.jsonl", ["a b", "c"])
    words = ["--hf-tokenizer", str(tmp_path / "t"), "--data-prefix", "a", "--output-dir", str(tmp_path)]
    words += ["--input-dir", str(tmp_path / "a.jsonl"), "--engine", "hf", "--workers", "1"]
    assert main(words) == 2
    assert "code of its own (own.Own)" in capsys.readouterr().err
    run = [
        "-M",
        "nano",
        "--data-mode",
        "stream",
        "--dataset-dir",
        str(tmp_path / "a.jsonl"),
        "--max-steps",
        "2",
    ]
    run += ["--hf-model-id", str(tmp_path / "t"), "--dry-run"]
    assert pretrain(run) == 1
    assert "use --trust-remote-code" in capsys.readouterr().err
    assert not ran.exists()
    assert main([*words, "--trust-remote-code"]) == 0
    assert ran.exists()
    assert pretrain([*run, "--trust-remote-code"]) == 0
    assert "code of its folder runs (own.Own)" in "".join(capsys.readouterr())
