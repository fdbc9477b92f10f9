"""Input: every kind of file, and every kind of record that is not a document."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokens_support import pair, variant, write_jsonl, write_reference

from nemolaunch.cli.commands.tokenize import main

GOOD = [f"document number {i}: " + "some words and 中文 " * (i % 7) for i in range(60)]


class Place:
    """A folder with a tokenizer, and a run of the command in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tokenizer = variant("small", folder / "tokenizer")

    def run(self, *words: str, name: str = "data") -> int:
        """Run the command. Return its exit code."""
        fixed = [
            "--hf-tokenizer",
            str(self.tokenizer),
            "--data-prefix",
            name,
            "--output-dir",
            str(self.folder),
        ]
        return main([*fixed, "--engine", "hf", "--workers", "2", *words])

    def made(self, name: str = "data", key: str = "text") -> Path:
        return self.folder / "preprocessed" / f"{name}_{key}_document"

    def manifest(self, name: str = "data") -> dict:
        return json.loads(Path(f"{self.made(name)}.manifest.json").read_text())

    def rejects(self, name: str = "data") -> list[tuple[str, int, str]]:
        lines = (self.folder / "preprocessed" / f"{name}_rejects.jsonl").read_text().splitlines()
        found = [json.loads(line) for line in lines]
        return [(os.path.basename(r["file"]), r["line"], r["reason"]) for r in found]

    def reference(self, documents: Iterable[str | Sequence[str]]) -> tuple[bytes, bytes]:
        write_reference(self.folder / "reference", self.tokenizer, documents)
        return pair(self.folder / "reference")


@pytest.fixture
def place(tmp_path: Path, tokens_cache: Path) -> Place:
    return Place(tmp_path)


BAD = {
    b'{"text": "cut off': "invalid JSON: Unterminated string",
    b'{"text": "a\x01b"}': "invalid JSON: Invalid control character",
    b'\xef\xbb\xbf{"text": "byte order mark"}': "invalid JSON: Unexpected UTF-8 BOM",
    b'{"body": "x", "id": 3}': "no key 'text'; it has 'body', 'id'",
    b'{"text": null}': "'text' is null, not a string",
    b'{"text": 12}': "'text' is a number, not a string",
    b'{"text": {"a": "b"}}': "'text' is an object, not a string",
    b'{"text": ["a", 1]}': "'text' is a list that is not all strings, not a string",
    b'["text"]': "not an object with keys but a list",
    b'{"text": "lone \\ud800 surrogate"}': "a lone surrogate \\ud800",
    b'{"text": "bad \xff byte"}': "invalid UTF-8: byte 0xff at byte 15 of the line",
    b'{"text": "a"} {"text": "b"}': "invalid JSON: Extra data",
}


@pytest.mark.parametrize("line", BAD, ids=lambda line: ascii(line)[2:30])
def test_a_bad_line_stops_the_run_or_is_skipped(
    line: bytes, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message and the rejects file have file, line and reason; the rest is as if the line did not exist."""
    lines = [json.dumps({"text": text}, ensure_ascii=False).encode() for text in GOOD]
    lines.insert(40, line)
    source = place.folder / "in.jsonl"
    source.write_bytes(b"\n".join(lines) + b"\n")

    assert place.run("--input-dir", str(source), "--piece-bytes", "500") == 1
    message = capsys.readouterr().err
    assert f"{source}, line 41: {BAD[line]}" in message
    assert "--on-error skip" in message
    assert "Traceback" not in message
    assert not place.made().with_suffix(".bin").exists()
    assert not place.made().with_suffix(".idx").exists()
    assert [(file, number) for file, number, _ in place.rejects()] == [("in.jsonl", 41)]

    assert place.run("--input-dir", str(source), "--on-error", "skip") == 0
    assert pair(place.made()) == place.reference(GOOD)
    ((file, number, reason),) = place.rejects()
    assert (file, number) == ("in.jsonl", 41)
    assert reason.startswith(BAD[line])
    assert place.manifest()["rejects"] == 1
    assert not (place.folder / "preprocessed" / "data.unfinished").exists()


def test_line_numbers_hold_over_pieces_and_files(place: Place) -> None:
    """Many bad lines in two files, in pieces far smaller than the files."""
    for name, bad in (("a.jsonl", {3, 50, 200}), ("b.jsonl", {1, 199})):
        lines = ["oops" if i in bad else json.dumps({"text": "x" * (i % 90)}) for i in range(1, 201)]
        (place.folder / "in").mkdir(exist_ok=True)
        (place.folder / "in" / name).write_text("\n".join(lines) + "\n")
    source = str(place.folder / "in")
    assert place.run("--input-dir", source, "--on-error", "skip", "--piece-bytes", "700") == 0
    found = [(file, line) for file, line, _ in place.rejects()]
    assert found == [("a.jsonl", 3), ("a.jsonl", 50), ("a.jsonl", 200), ("b.jsonl", 1), ("b.jsonl", 199)]


def test_blank_lines_and_a_byte_order_mark_are_no_errors(place: Place) -> None:
    """A byte order mark starts the file, and there are blank lines between documents, which are counted."""
    text = "\ufeff" + "\n\n".join(json.dumps({"text": text}) for text in GOOD) + "\n \n"
    (place.folder / "in.jsonl").write_text(text, encoding="utf-8")
    assert place.run("--input-dir", str(place.folder / "in.jsonl")) == 0
    assert pair(place.made()) == place.reference(GOOD)
    assert place.manifest()["blank_lines"] == 60


def test_every_kind_of_file_gives_the_same_bytes(place: Place) -> None:
    """Plain JSONL, gzip with two members, zstd, parquet in row groups, text files; alone and in a folder."""
    expected = place.reference(GOOD)
    plain = write_jsonl(place.folder / "in.jsonl", GOOD)
    data = plain.read_bytes()
    half = data.index(b"\n", len(data) // 2) + 1
    (place.folder / "in.jsonl.gz").write_bytes(gzip.compress(data[:half]) + gzip.compress(data[half:]))
    with pa.CompressedOutputStream(str(place.folder / "in.jsonl.zst"), "zstd") as file:
        file.write(data)
    pq.write_table(pa.table({"text": GOOD, "id": range(60)}), place.folder / "in.parquet", row_group_size=13)
    (place.folder / "texts").mkdir()
    for i, text in enumerate(GOOD):
        (place.folder / "texts" / f"{i:03d}.txt").write_text(text, encoding="utf-8")
    for name in ("in.jsonl", "in.jsonl.gz", "in.jsonl.zst", "in.parquet", "texts", "texts/*.txt"):
        made = name.replace("/", "_").replace("*", "all").replace(".", "_")
        assert place.run("--input-dir", str(place.folder / name), "--piece-bytes", "900", name=made) == 0
        assert pair(place.made(made)) == expected, name


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_a_truncated_file_is_refused_with_its_place(
    ending: str, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    documents = [f"{i} {os.urandom(30).hex()}" for i in range(6000)]  # several blocks of zstd
    data = write_jsonl(place.folder / "plain", documents).read_bytes()
    source = place.folder / f"in.jsonl.{ending}"
    packed = gzip.compress(data) if ending == "gz" else pa.compress(data, codec="zstd", asbytes=True)
    source.write_bytes(packed[: len(packed) * 2 // 3])
    assert place.run("--input-dir", str(source), "--piece-bytes", "20000") == 1
    assert f"{source}, line " in capsys.readouterr().err
    assert place.run("--input-dir", str(source), "--on-error", "skip") == 0
    kept = place.manifest()["documents"]
    assert pair(place.made()) == place.reference(documents[:kept])
    reasons = [reason for _, _, reason in place.rejects()]
    assert any("truncated" in reason for reason in reasons), reasons


def test_parquet_rows_that_are_not_text(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(pa.table({"text": ["a", None, "b"]}), place.folder / "nulls.parquet")
    assert place.run("--input-dir", str(place.folder / "nulls.parquet")) == 1
    assert "nulls.parquet, line 2: 'text' is null" in capsys.readouterr().err
    assert place.run("--input-dir", str(place.folder / "nulls.parquet"), "--on-error", "skip") == 0
    assert pair(place.made()) == place.reference(["a", "b"])
    pq.write_table(pa.table({"content": ["a"]}), place.folder / "other.parquet")
    assert place.run("--input-dir", str(place.folder / "other.parquet"), name="other") == 1
    assert "no column 'text'; it has 'content'" in capsys.readouterr().err


def test_several_keys_and_columns_by_file(place: Place) -> None:
    """Each key has its own output; a file may name its columns differently."""
    folder = place.folder / "in"
    folder.mkdir()
    with open(folder / "a.jsonl", "w") as file:
        file.writelines(json.dumps({"text": t, "title": t[:5]}) + "\n" for t in GOOD[:30])
    pq.write_table(
        pa.table({"content": GOOD[30:], "title": [t[:5] for t in GOOD[30:]]}), folder / "b.parquet"
    )
    words = [
        "--input-dir",
        str(folder),
        "--text-key",
        "text",
        "title",
        "--text-key-of",
        "*.parquet:text=content",
    ]
    assert place.run(*words) == 0
    assert pair(place.made()) == place.reference(GOOD)
    assert pair(place.made(key="title")) == place.reference([t[:5] for t in GOOD])


def test_mistakes_are_reported_with_what_to_do(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    source = str(write_jsonl(place.folder / "in.jsonl", GOOD))
    cases = {
        ("--input-dir", str(place.folder / "missing")): "there is no such file or folder",
        ("--input-dir", str(place.folder / "tokenizer")): "has no data",
        ("--input-dir", source, "--shard", "5/4"): "--shard '5/4' is not I/N",
        ("--input-dir", source, "--workers", "0"): "--workers 0",
        ("--input-dir", source, "--text-key-of", "*.gz=content"): "matches no input file",
        ("--input-dir", source, "--eod-token", "<none>"): "--eod-token",
    }
    for words, message in cases.items():
        assert place.run(*words) == 2
        assert message in capsys.readouterr().err
    assert place.run("--input-dir", source) == 0
    assert place.run("--input-dir", source) == 0
    assert "existed already" in capsys.readouterr().out
    write_jsonl(place.folder / "in.jsonl", GOOD[:3])
    assert place.run("--input-dir", source) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert place.run("--input-dir", source, "--overwrite") == 0
    assert pair(place.made()) == place.reference(GOOD[:3])
