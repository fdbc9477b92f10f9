"""Vocabulary and roles of a tokenizer folder: what `AutoTokenizer` of transformers counts, in every form of folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizer_folders import WORDS, Make, bert, fast, gpt2, put, sentencepiece_folder

from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.tokenizer import classes, classes_dump, completion, library, vocabulary
from nemolaunch.tokenizer.inspection import look_at_tokenizer
from nemolaunch.tokenizer.vocabulary import Vocabulary

GENERIC = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
LLAMA = {"tokenizer_class": "LlamaTokenizer", "legacy": False}
N = len(WORDS)
ADDED = {
    "__type": "AddedToken",
    "content": "<new>",
    "lstrip": False,
    "rstrip": False,
    "single_word": False,
    "normalized": True,
}
BERT_NORMALIZER = {
    "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True
}  # fmt: skip
GAPS = {word: 3 * number for number, word in enumerate(WORDS)}

# Read without transformers
FAST: dict[str, Make] = {
    "plain": fast(GENERIC),
    "wordpiece": fast(GENERIC, kind="WordPiece"),
    "unigram": fast(GENERIC, kind="Unigram"),
    "wordlevel": fast(GENERIC, kind="WordLevel"),
    "added in tokenizer.json": fast(GENERIC, added=[(0, "<unk>"), (N, "<pad>")]),
    "added with a gap": fast(GENERIC, added=[(N + 50, "<pad>"), (N + 90, "<more>")]),
    "added twice": fast(GENERIC, added=[(N, "<pad>"), (N + 1, "<pad>")]),
    "gaps in the base vocabulary": fast(GENERIC, vocab=GAPS, added=[(99, "<pad>"), (0, "<unk>")]),
    "eos only in the config": fast({**GENERIC, "eos_token": "<end>"}),
    "pad only in the config": fast({**GENERIC, "pad_token": "[PAD]"}),
    "pad as an object": fast({**GENERIC, "pad_token": ADDED}),
    "pad is eos": fast({**GENERIC, "pad_token": "</s>"}),
    "null role": fast({**LLAMA, "unk_token": None}),
    "pad only in the map": fast(GENERIC, special_tokens_map={"pad_token": "[PAD]"}),
    "map against config": fast(
        {**GENERIC, "eos_token": "<end>"}, special_tokens_map={"eos_token": {**ADDED, "content": "</s>"}}
    ),
    "map beside a list of added tokens": fast(
        {**GENERIC, "added_tokens_decoder": {"2": {**ADDED, "content": "</s>"}}},
        special_tokens_map={"eos_token": "<other>", "pad_token": "[PAD]"},
    ),
    "added_tokens.json": fast({**GENERIC, "pad_token": "[PAD]"}, added_tokens={"[PAD]": N}),
    "added_tokens.json alone": fast(GENERIC, added_tokens={"<b>": N + 1, "<a>": N}),
    "added_tokens.json with a gap": fast(GENERIC, added_tokens={"<b>": N + 70, "<a>": N + 4}),
    "added_tokens.json beside a list": fast({**GENERIC, "added_tokens_decoder": {}}, added_tokens={"<a>": N}),
    "decoder": fast(
        {**GENERIC, "added_tokens_decoder": {"90": ADDED, "14": {**ADDED, "content": "<first>"}}}
    ),
    "additional": fast(
        {**GENERIC, "additional_special_tokens": ["<x>", ADDED]},
        special_tokens_map={"additional_special_tokens": ["<y>", "<x>"]},
    ),
    "extra by name": fast({**GENERIC, "extra_special_tokens": {"image_token": "<image>"}}),
    "padding": fast(
        GENERIC,
        top={
            "padding": {
                "strategy": "BatchLongest",
                "direction": "Right",
                "pad_to_multiple_of": None,
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": "<padding>",
            }
        },
    ),
    "every role": fast(
        {
            **GENERIC,
            **{role: f"<{role}>" for role in vocabulary.ROLES},
            "mask_token": {**ADDED, "lstrip": True},
        }
    ),
    "Llama": fast(LLAMA),
    "GPT-2": fast({"tokenizer_class": "GPT2TokenizerFast"}),
    "Qwen 2": fast({"tokenizer_class": "Qwen2Tokenizer", "pad_token": "<|im_end|>"}),
    "Gemma": fast({"tokenizer_class": "GemmaTokenizer"}),
    "GPT-NeoX": fast({"tokenizer_class": "GPTNeoXTokenizer"}),
    "Bert": fast({"tokenizer_class": "BertTokenizer"}, kind="WordPiece", top={"normalizer": BERT_NORMALIZER}),
    "Roberta": fast({"tokenizer_class": "RobertaTokenizer"}),
    "class by the model's type": fast({}, config={"model_type": "qwen2"}),
    "class in the model's config": fast(
        {}, config={"model_type": "llama", "tokenizer_class": "GPT2Tokenizer"}
    ),
    "no class": fast({"eos_token": "</s>", "pad_token": "<pad>"}),
    "a class of transformers 5": fast(
        {"tokenizer_class": "Qwen2Tokenizer", "backend": "tokenizers", "eos_token": "</s>"}
    ),
    "of transformers 5": fast(
        {"tokenizer_class": "TokenizersBackend", "eos_token": "</s>", "extra_special_tokens": ["<x>", "<y>"]}
    ),
}
# Read with transformers
SLOW: dict[str, Make] = {
    "vocab.json": gpt2,
    "vocab.txt": bert,
    "T5 adds tokens": fast({"tokenizer_class": "T5Tokenizer", "extra_ids": 20}, kind="Unigram"),
    "tokenizer.model": sentencepiece_folder("tokenizer.model", LLAMA, added_tokens={"[PAD]": 320}),
    "spiece.model": sentencepiece_folder("spiece.model", {"tokenizer_class": "T5Tokenizer"}, "unigram"),
    "bare": sentencepiece_folder("tokenizer.model", None),
    "bare unigram": sentencepiece_folder("spiece.model", {"pad_token": "<pad>"}, "unigram"),
}


def by_transformers(folder: Path) -> Any:
    from transformers import AutoTokenizer

    with completion.loadable(folder) as usable:
        return AutoTokenizer.from_pretrained(usable, trust_remote_code=False)


def compare(found: Vocabulary | None, expected: Any) -> None:
    assert found is not None
    assert dict(found.ids) == expected.get_vocab()
    assert found.size == len(expected)
    for role in vocabulary.ROLES:
        assert found.roles.get(role) == getattr(expected, role), role
        assert found.id_of(role) == getattr(expected, f"{role}_id"), role


@pytest.mark.parametrize("name", FAST)
def test_planning_counts_what_transformers_counts(name: str, tmp_path: Path) -> None:
    FAST[name](tmp_path)
    compare(vocabulary.read(tmp_path), by_transformers(tmp_path))


@pytest.mark.parametrize("name", [*SLOW, "decoder", "every role"])
def test_tokenising_counts_what_transformers_counts(name: str, tmp_path: Path) -> None:
    (SLOW | FAST)[name](tmp_path)
    assert (vocabulary.read(tmp_path) is None) == (name in SLOW)
    frozen = library.freeze(library.load(tmp_path))
    assert frozen["refused"] is None
    compare(vocabulary.of_backend(frozen["backend"], frozen["roles"]), by_transformers(tmp_path))


def test_planning_asks_transformers_where_the_files_are_not_enough(tmp_path: Path) -> None:
    gpt2(tmp_path / "t")
    seen = look_at_tokenizer(str(tmp_path / "t"))
    assert seen.error is None
    assert (seen.vocab_size, seen.end_id, seen.roles["pad_token"]) == (32, 0, "<|pad|>")


def test_the_table_of_classes_is_that_of_transformers() -> None:
    """Run `python -m nemolaunch.tokenizer.classes_dump` after an update of transformers."""
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    assert json.loads(classes_dump.TARGET.read_text()) == classes_dump.content()
    for name, roles in classes.ROLES.items():
        tokenizer_class: Any = tokenizer_class_from_name(f"{name}Fast")
        parameters = __import__("inspect").signature(tokenizer_class.__init__).parameters
        defaults = {role: parameters[role].default for role in vocabulary.ROLES if role in parameters}
        assert roles == {role: token for role, token in defaults.items() if token}, name


def test_a_vocabulary_without_a_class_is_refused_with_what_to_do(tmp_path: Path) -> None:
    gpt2(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    with pytest.raises(NemolaunchError, match=r'no file names its class: .*"GPT2Tokenizer"'):
        library.load(tmp_path)


CODE = "class OwnTokenizer: ...\nraise SystemExit('the code ran')\n"


@pytest.mark.parametrize(
    ("config", "model", "expected"),
    [
        ({"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["own.A", "own.B"]}}, {}, "own.B"),
        ({"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["own.A", None]}}, {}, "own.A"),
        ({"tokenizer_class": "OwnTokenizer", "auto_map": ["own.A", None]}, {}, "own.A"),
        ({}, {"model_type": "gpt2", "auto_map": {"AutoTokenizer": ["own.A", None]}}, None),
        ({}, {"model_type": "own", "auto_map": {"AutoConfig": "own.C"}}, "own.C"),
        ({"tokenizer_class": "GPT2Tokenizer", "auto_map": {"AutoTokenizer": ["own.A", None]}}, {}, None),
        (
            {"tokenizer_class": "GPT2Tokenizer"},
            {"model_type": "own", "auto_map": {"AutoConfig": "own.C"}},
            None,
        ),
    ],
)
def test_code_of_a_folder_is_found_as_transformers_finds_it(
    config: dict[str, Any], model: dict[str, Any], expected: str | None, tmp_path: Path
) -> None:
    fast(config)(tmp_path)
    if model:
        put(tmp_path, "config.json", model)
    (tmp_path / "own.py").write_text(CODE)
    assert classes.code_of(tmp_path) == expected
    if expected is None:
        assert library.load(tmp_path).eos_token == "<|endoftext|>"
        return
    with pytest.raises(ValueError, match="trust_remote_code"):
        by_transformers(tmp_path)
    with pytest.raises(UsageError, match=f"code of its own .{expected}.*--trust-remote-code"):
        library.load(tmp_path)
    assert look_at_tokenizer(str(tmp_path)).code == expected


def test_trusted_code_runs(tmp_path: Path) -> None:
    fast({"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": [None, "own.Own"]}, "eos_token": "</s>"})(
        tmp_path / "t"
    )
    code = "from transformers import PreTrainedTokenizerFast\nclass Own(PreTrainedTokenizerFast):\n    mine = 1\n"
    (tmp_path / "t" / "own.py").write_text(code)
    assert library.load(tmp_path / "t", trust_remote_code=True).mine == 1
    seen = look_at_tokenizer(str(tmp_path / "t"), trust_remote_code=True)
    assert (seen.vocab_size, seen.end_id) == (N, 2)
