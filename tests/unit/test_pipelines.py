"""What other pipelines write is tokenised as any text, and they can write our files themselves."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

import nemolaunch as nl
from nemolaunch.data.index import IndexFile

EXAMPLES = Path(__file__).parents[2] / "examples"
GOLDEN = Path(__file__).parents[1] / "golden"
TOKENIZER = EXAMPLES / "tokenizer"
TEXTS = [f"document {i}, of some words and 中文 {i * 7919}" for i in range(300)]


@pytest.fixture
def source(tmp_path: Path, tokens_cache: Path) -> Path:
    """Two files of JSON Lines."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name, texts in (("a", TEXTS[:140]), ("b", TEXTS[140:])):
        lines = (json.dumps({"text": text, "id": text[:12]}) + "\n" for text in texts)
        (folder / f"{name}.jsonl").write_text("".join(lines))
    return folder


def tokenised(source: Path, prefix: Path, **options: object) -> dict[str, bytes]:
    result = nl.tokenize(source, tokenizer=TOKENIZER, prefix=prefix, engine="hf", workers=1, **options)  # type: ignore[arg-type]
    (made,) = result.prefixes
    return pair(made)


def pair(prefix: Path) -> dict[str, bytes]:
    return {end: prefix.with_name(prefix.name + end).read_bytes() for end in (".bin", ".idx")}


def test_a_datatrove_pipeline_writes_the_same_bytes(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("datatrove")
    runpy.run_path(str(EXAMPLES / "datatrove_pipeline.py"))["main"](
        str(source), str(tmp_path / "out"), str(TOKENIZER)
    )
    assert pair(tmp_path / "out/corpus_text_document") == tokenised(source, tmp_path / "ref/corpus")
    record = json.loads((tmp_path / "out/corpus_text_document.manifest.json").read_text())
    assert record["documents"] == len(TEXTS)
    assert [s["path"] for s in record["sources"]] == [
        f"rows://datatrove/corpus-{i:05d}-of-00002" for i in (1, 2)
    ]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "corpus_text_document.bin",
        "corpus_text_document.idx",
        "corpus_text_document.manifest.json",
        "logs",
    ]


def test_a_task_that_fails_leaves_no_shard(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("datatrove")
    from datatrove.data import Document

    from nemolaunch.api.datatrove_step import WriteTokens

    def broken() -> object:
        yield Document(text="one", id="1")
        raise OSError("the reader fails")

    with pytest.raises(OSError, match="the reader fails"):
        list(WriteTokens(tmp_path / "out/corpus", TOKENIZER, engine="hf").run(broken()))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("form", ["JsonlWriter", "ParquetWriter"])
def test_what_datatrove_writes_is_read(form: str, source: Path, tmp_path: Path) -> None:
    pytest.importorskip("datatrove")
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline import writers
    from datatrove.pipeline.readers import JsonlReader

    written = tmp_path / "written"
    pipeline = [JsonlReader(str(source), glob_pattern="*.jsonl"), getattr(writers, form)(str(written))]
    LocalPipelineExecutor(pipeline, tasks=2, workers=1, logging_dir=str(tmp_path / "logs")).run()
    assert tokenised(written, tmp_path / "one/x") == tokenised(source, tmp_path / "two/x")


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_what_curator_wrote_is_read(form: str, tmp_path: Path, tokens_cache: Path) -> None:
    """Each file, named by a hash, has a batch of four documents, whose texts are as they were before Curator."""
    folder = GOLDEN / "curator" / form
    lines = []
    for path in sorted(folder.iterdir()):
        batch = _first_number(path, form)
        for i in range(batch, batch + 4):
            text = f'Document {i}: some words, 中文 and 😀.\nA second "line".'
            lines.append(json.dumps({"content": text}) + "\n")
    in_order = tmp_path / "in-order.jsonl"
    in_order.write_text("".join(lines))
    keys = {"text_keys": ["content"]}
    assert tokenised(folder, tmp_path / "one/x", **keys) == tokenised(in_order, tmp_path / "two/x", **keys)


def _first_number(path: Path, form: str) -> int:
    """Return the number of the first document of a file, read by pandas as Curator reads it."""
    import pandas as pd

    frame = pd.read_parquet(path) if form == "parquet" else pd.read_json(path, lines=True)
    assert len(frame) == 4
    return int(frame["content"][0].split()[1].rstrip(":"))


def test_other_texts_have_another_digest(source: Path, tmp_path: Path) -> None:
    """The index cache of other data with the same lengths is not read."""
    from nemolaunch.data.data_digest import digest_now
    from nemolaunch.tokenization.text_writer import TextWriter

    digests = set()
    for name in ("x", "y"):
        writer = TextWriter(
            tmp_path / name, tokenizer=str(TOKENIZER), cache=tmp_path, source="t", engine="hf"
        )
        with writer:
            writer.add(f"a text {name}")
        with IndexFile(str(writer.prefix)) as index:
            assert index.bin_bytes
        digests.add(digest_now(str(writer.prefix)))
    assert len(digests) == 2


@pytest.mark.long
def test_a_stage_of_ray_data_writes_the_same_bytes(source: Path, tmp_path: Path) -> None:
    import ray

    pytest.importorskip("ray.data")
    ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=128 << 20)
    try:
        runpy.run_path(str(EXAMPLES / "ray_data.py"))["main"](
            str(source), str(tmp_path / "out"), str(TOKENIZER)
        )
    finally:
        ray.shutdown()
    assert pair(tmp_path / "out/corpus_text_document") == tokenised(source, tmp_path / "ref/corpus")
    assert list((tmp_path / "out/shards").iterdir()) == []
