"""Shards, merging, splits, and inspecting what was written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tokens_support import pair, variant, write_jsonl

from nemolaunch.cli.commands import inspect
from nemolaunch.cli.commands.merge import main as merge
from nemolaunch.cli.commands.tokenize import main as tokenize


class Data:
    """Five files and a tokenizer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tokenizer = variant("small", folder / "tokenizer")
        for i in range(5):
            documents = [f"file {i} document {j} " * (j % 5) for j in range(20 * (i + 1))]
            write_jsonl(folder / "in" / f"{i}.jsonl", documents)
        assert self.run() == 0

    def run(self, *words: str, tokenizer: Path | None = None, name: str = "data") -> int:
        fixed = ["--hf-tokenizer", str(tokenizer or self.tokenizer), "--data-prefix", name, "--engine", "hf"]
        fixed += ["--input-dir", str(self.folder / "in"), "--output-dir", str(self.folder), "--workers", "1"]
        return tokenize([*fixed, *words])

    @property
    def out(self) -> Path:
        return self.folder / "preprocessed"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, tokens_cache: Path) -> Data:
    return Data(tmp_path_factory.mktemp("merge"))


def test_shards_merged_are_one_run(data: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two merged shards have the bytes of one run; a missing shard and a wrong order are refused."""
    for i in (1, 2):
        assert data.run("--shard", f"{i}/2") == 0
    shards = [str(data.out / "shards" / f"data-0000{i}-of-00002_text_document") for i in (1, 2)]
    assert merge([*shards, "--output-prefix", str(tmp_path / "all")]) == 0
    assert pair(tmp_path / "all") == pair(data.out / "data_text_document")
    record = json.loads((tmp_path / "all.manifest.json").read_text())
    assert record["documents"] == 300
    assert len(record["sources"]) == 5
    for wrong in ([shards[0]], shards[::-1]):
        assert merge([*wrong, "--output-prefix", str(tmp_path / "wrong")]) == 2
        assert "are needed, once each, in order" in capsys.readouterr().err
    assert merge([*shards, "--output-prefix", str(tmp_path / "all")]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert merge([*shards, "--as-blend", "--output-prefix", str(tmp_path / "all")]) == 0
    assert (tmp_path / "all.yaml").exists()


def test_other_tokenizers_and_dtypes_are_not_merged(
    data: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind, message in (("nfc", "the tokenizer"), ("large", "dtype differs")):
        other = variant(kind, tmp_path / kind)
        assert data.run(tokenizer=other, name=kind) == 0
        inputs = [str(data.out / "data_text_document"), str(data.out / f"{kind}_text_document")]
        assert merge([*inputs, "--output-prefix", str(tmp_path / "mixed")]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "mixed.bin").exists()


def test_validation_documents_are_the_same_in_any_order_of_work(data: Data) -> None:
    """Each document goes to one of the two by its hash, whatever the pieces; the manifest records it."""
    counts = []
    for name, piece in (("hash1", "500"), ("hash2", "1000000")):
        assert data.run("--validation-share", "0.3", "--piece-bytes", piece, name=name) == 0
        parts = [data.out / f"{name}{part}_text_document" for part in ("", "_validation")]
        records = [json.loads(Path(f"{p}.manifest.json").read_text()) for p in parts]
        counts.append([pair(p) for p in parts])
        assert sum(r["documents"] for r in records) == 300
        assert records[1]["documents"] > 0
        assert records[1]["split"] == {"rule": "document hash", "validation_share": 0.3, "part": "validation"}
    assert counts[0] == counts[1]


def test_validation_files(data: Data) -> None:
    assert data.run("--validation-files", "0.jsonl", name="files") == 0
    record = json.loads((data.out / "files_validation_text_document.manifest.json").read_text())
    assert record["documents"] == 20


def test_inspect_shows_and_finds_corruption(
    data: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Intact data give 0; each kind of damage gives 1 and the place."""
    sound = data.out / "data_text_document"
    picture = tmp_path / "lengths.png"
    assert inspect.main(["data", str(sound), "--picture", str(picture)]) == 0
    shown = capsys.readouterr().out
    assert "documents  300" in shown
    assert "file 0 document 1" in shown
    assert picture.stat().st_size > 1000

    def damaged(end: str, at: int, new: bytes) -> str:
        copy = tmp_path / "copy"
        for kind in (".bin", ".idx", ".manifest.json"):
            shutil.copyfile(f"{sound}{kind}", f"{copy}{kind}")
        content = bytearray(Path(f"{copy}.{end}").read_bytes())
        content[at : at + len(new) if new else None] = new
        Path(f"{copy}.{end}").write_bytes(content)
        assert inspect.main(["data", str(copy)]) == 1
        return capsys.readouterr().err

    assert "at token 50, in sequence" in damaged("bin", 100, b"\xff\xff")
    assert "is not an index" in damaged("idx", 0, b"X")
    assert "sequence 4 has length" in damaged("idx", 34 + 4 * 3, b"\x01\x02\x00\x00")
    size = sound.with_suffix(".bin").stat().st_size
    assert f"{size - 2:,} bytes" in damaged("bin", size - 2, b"")
