"""The bytes of `.bin` and `.idx` are those of Megatron-LM's own tool and of megatron-core's writer."""

from __future__ import annotations

import random
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokens_support import EOD, GOLDEN, pair, variant, write_jsonl, write_reference

from nemolaunch.cli.commands.tokenize import main

VARIANTS = ("small", "large", "bos", "prefix", "nfc", "merged")


def tokenize(tmp_path: Path, tokenizer: Path, source: Path, *more: str, name: str = "data") -> Path:
    """Run the command. Return the prefix of its output."""
    words = ["--hf-tokenizer", str(tokenizer), "--data-prefix", name, "--input-dir", str(source)]
    assert main([*words, "--output-dir", str(tmp_path), *more]) == 0
    return tmp_path / "preprocessed" / f"{name}_text_document"


@pytest.mark.parametrize("kind", VARIANTS)
def test_traps_give_the_bytes_that_megatrons_tool_gave(kind: str, tmp_path: Path, tokens_cache: Path) -> None:
    """Megatron-LM's tools/preprocess_data.py made the recorded files, see tests/golden/tokens/record.py."""
    tokenizer = variant(kind, tmp_path / "tokenizer")
    expected = pair(GOLDEN / f"{kind}_text_document")
    assert pair(tokenize(tmp_path, tokenizer, GOLDEN / "traps.jsonl", "--engine", "hf")) == expected
    crlf = tokenize(tmp_path, tokenizer, GOLDEN / "traps_crlf.jsonl", "--engine", "hf", name="crlf")
    assert pair(crlf) == expected


@pytest.mark.parametrize("kind", VARIANTS)
def test_the_automatically_chosen_engine_gives_the_same_bytes(
    kind: str, tmp_path: Path, tokens_cache: Path
) -> None:
    tokenizer = variant(kind, tmp_path / "tokenizer")
    made = tokenize(tmp_path, tokenizer, GOLDEN / "traps.jsonl", "--workers", "2")
    assert pair(made) == pair(GOLDEN / f"{kind}_text_document")


def test_documents_of_ten_megabytes(tmp_path: Path, tokens_cache: Path) -> None:
    """They are far longer than a piece of work and than what is encoded at once."""
    chance = random.Random(5)
    words = ["alpha", "beta ", "\n", "\n\n", "  ", "中文", "don't", "1234", "🙂", EOD, "def f(x):", "\t", "é"]
    long = "".join(chance.choice(words) for _ in range(2_600_000))
    assert len(long.encode()) > 10_000_000
    documents = ["before", long, "", "between", "中" * 700_000 + "\nline " * 100_000, "after"]
    tokenizer = variant("bos", tmp_path / "tokenizer")
    source = write_jsonl(tmp_path / "in.jsonl", documents)
    write_reference(tmp_path / "reference", tokenizer, documents)
    assert pair(tokenize(tmp_path, tokenizer, source, "--workers", "2")) == pair(tmp_path / "reference")


TEXTS = st.one_of(
    st.text(max_size=60),
    st.text(alphabet=" \n\r\tab1.'中é🙂\u0301", max_size=80),
    st.lists(st.sampled_from([EOD, "<|begin|>", "<|end", " ", "\n", "word", "Word's"]), max_size=8).map(
        "".join
    ),
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    documents=st.lists(st.one_of(TEXTS, st.lists(TEXTS, max_size=3)), max_size=30), piece=st.integers(8, 400)
)
def test_any_documents_cut_anywhere(
    documents: list[str | list[str]], piece: int, tmp_path_factory: pytest.TempPathFactory, tokens_cache: Path
) -> None:
    """Random documents, in pieces of a few bytes: the borders between pieces leave no trace."""
    tmp_path = tmp_path_factory.mktemp("any")
    documents = [*documents, "word"]  # an input without any document is refused
    tokenizer = variant("bos", tmp_path / "tokenizer")
    source = write_jsonl(tmp_path / "in.jsonl", documents)
    write_reference(tmp_path / "reference", tokenizer, documents)
    made = tokenize(tmp_path, tokenizer, source, "--workers", "1", "--piece-bytes", str(piece))
    assert pair(made) == pair(tmp_path / "reference")


def test_megatron_reads_what_was_written(tmp_path: Path, tokens_cache: Path) -> None:
    """IndexedDataset returns every document, GPTDataset makes samples of them."""
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
    from megatron.core.datasets.indexed_dataset import IndexedDataset
    from megatron.core.datasets.utils import Split

    documents = [f"document {i} " + "word " * (i % 50) for i in range(400)]
    tokenizer = variant("small", tmp_path / "tokenizer")
    prefix = tokenize(tmp_path, tokenizer, write_jsonl(tmp_path / "in.jsonl", documents))
    from tokens_support import auto_tokenizer

    loaded = auto_tokenizer(str(tokenizer))
    dataset = IndexedDataset(str(prefix))
    assert len(dataset) == 400
    assert [loaded.decode(dataset[i]) for i in (0, 7, 399)] == [documents[i] + EOD for i in (0, 7, 399)]

    class Tokens:
        eod = loaded.eos_token_id
        unique_identifiers: ClassVar = {"name": "small"}

    config = GPTDatasetConfig(
        random_seed=1,
        sequence_length=64,
        split="1",
        blend=([str(prefix)], None),
        path_to_cache=str(tmp_path / "cache"),
        tokenizer=Tokens(),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
    )
    samples = GPTDataset(
        dataset, str(prefix), dataset.document_indices[:-1].astype("int32"), 10, Split.train, config
    )
    assert samples[0]["tokens"].shape == (64,)
