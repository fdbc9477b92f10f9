"""Text as people have it: one test a public report, with its number, the right value and where that comes from."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from tokens_support import pair, variant, write_jsonl

from nemolaunch.cli.commands.pretrain import main as pretrain
from nemolaunch.cli.commands.tokenize import main

TEXTS = [f"article {i} about birds and rivers {i * 7919 % 1000}" for i in range(300)]
LINES = [json.dumps({"text": text}) + "\n" for text in TEXTS]
DATA = "".join(LINES).encode()
PACK: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.compress,
}


class Corner:
    """A folder with a tokenizer; `run` tokenises and returns the exit code and what was printed."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self._tokenizer = variant("small", folder / "tokenizer")

    def run(self, path: str | Path, *words: str, name: str = "a") -> tuple[int, str]:
        fixed = ["--hf-tokenizer", str(self._tokenizer), "--data-prefix", name, "--engine", "hf"]
        where = ["--output-dir", str(self.folder / "out"), "--workers", "1"]
        code = main([*fixed, *where, "--input-dir", str(self.folder / path), *words])
        printed = self._capsys.readouterr()
        return code, printed.out + printed.err

    def documents(self, name: str = "a") -> int:
        path = self.folder / "out" / "preprocessed" / f"{name}_text_document.manifest.json"
        return int(json.loads(path.read_text())["documents"])

    def write(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def left(self) -> set[str]:
        folder = self.folder / "out" / "preprocessed"
        return {path.name for path in folder.iterdir()} - {"a_rejects.jsonl"} if folder.exists() else set()


@pytest.fixture
def corner(tmp_path: Path, tokens_cache: Path, capsys: pytest.CaptureFixture[str]) -> Corner:
    return Corner(tmp_path, capsys)


def readable(command: list[str]) -> int:
    """Return how many complete records the compression's own program gets out of a file."""
    out = subprocess.run(command, capture_output=True, check=False).stdout
    return sum(line.startswith(b"{") and line.endswith(b"}") for line in out.split(b"\n"))


def test_zstd_with_a_long_window(corner: Corner) -> None:
    """indygreg/python-zstandard#157: `zstd --long=31 -d` reads all; its manual names 2 GiB as the largest window."""
    parameters = zstandard.ZstdCompressionParameters(
        window_log=31, hash_log=10, strategy=zstandard.STRATEGY_FAST
    )
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    corner.write("a.jsonl.zst", packer.compress(DATA) + packer.flush())
    assert corner.run("a.jsonl.zst")[0] == 0
    assert corner.documents() == len(TEXTS)


def test_bytes_behind_a_download(corner: Corner) -> None:
    """jingyaogong/minimind#350: gzip's manual has such bytes ignored with a warning; `zcat` gives 300 lines."""
    path = corner.write("a.jsonl.gz", gzip.compress(DATA) + b"<html>oops</html>")
    code, printed = corner.run("a.jsonl.gz")
    assert code == 1
    assert "17 bytes after the end" in printed
    code, printed = corner.run("a.jsonl.gz", "--on-error", "skip")
    assert code == 0
    assert corner.documents() == readable(["zcat", str(path)]) == 300
    assert "17 bytes after the end" in printed


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz", "zst"])
def test_a_download_that_ended_early(ending: str, corner: Corner) -> None:
    """huggingface/datatrove#78: what `zcat`, `bzcat`, `xzcat` and `zstdcat` still give is kept."""
    text = "".join(
        json.dumps({"text": os.urandom(400).hex()}) + "\n" for _ in range(2500)
    ).encode()  # blocks of bzip2
    data = PACK[ending](text)
    path = corner.write(f"a.jsonl.{ending}", data[: len(data) * 3 // 4])
    code, printed = corner.run(path.name, "--on-error", "skip")
    program = {"gz": "zcat", "bz2": "bzcat", "xz": "xzcat", "zst": "zstdcat"}[ending]
    assert code == 0
    assert corner.documents() >= readable([program, str(path)]) > 100
    assert "truncated" in printed


def test_damage_in_the_middle_and_members_after_it(corner: Corner) -> None:
    """huggingface/datatrove#78: the members of a gzip file are independent of each other (RFC 1952, 2.2)."""
    first, second, third = (gzip.compress("".join(LINES[i : i + 100]).encode()) for i in (0, 100, 200))
    broken = second[: len(second) // 2] + b"\xff" * 40 + second[len(second) // 2 + 40 :]
    corner.write("a.jsonl.gz", first + broken + third)
    code, printed = corner.run("a.jsonl.gz", "--on-error", "skip")
    assert code == 0
    assert 200 < corner.documents() < 300
    assert "bytes are lost" in printed
    assert f"continues at byte {len(first + broken):,}" in printed
    kept, _ = pair(corner.folder / "out" / "preprocessed" / "a_text_document")
    write_jsonl(corner.folder / "last.jsonl", TEXTS[200:])
    assert corner.run("last.jsonl", name="last")[0] == 0
    assert kept.endswith(pair(corner.folder / "out" / "preprocessed" / "last_text_document")[0])


def test_every_ending_in_one_folder(corner: Corner) -> None:
    """NVIDIA/Megatron-LM#395, huggingface/datasets#5850: 7 files of 300 documents, one that is named, not read."""
    for ending, pack in PACK.items():
        corner.write(f"in/a.jsonl.{ending}", pack(DATA))
    corner.write("in/b.ndjson", DATA)
    corner.write(
        "in/c.json.gz", gzip.compress(b"\xef\xbb\xbf" + DATA)
    )  # a byte order mark is no part of the JSON
    corner.write("in/d.ndjson.xz", lzma.compress(DATA))
    corner.write("in/e.csv", b"text\nx\n")
    corner.write("in/.ipynb_checkpoints/a-checkpoint.jsonl", DATA)  # alexa/massive#8
    code, printed = corner.run("in")
    assert code == 0
    assert corner.documents() == 7 * 300
    assert "1 file (e.csv) not read" in printed


def test_a_folder_of_other_files(corner: Corner) -> None:
    """NVIDIA-NeMo/Curator#318: nothing is read, which is an error with the names."""
    corner.write("in/a.csv", b"text\n")
    corner.write("in/b.json", b"{}")
    code, printed = corner.run("in")
    assert code == 2
    assert "2 files (a.csv, b.json) not read" in printed


def test_files_of_wikiextractor(corner: Corner) -> None:
    """NVIDIA/Megatron-LM#12, WikiExtractor/wikiextractor#191: AA/wiki_00 and, with -c, AB/wiki_00.bz2."""
    corner.write("t/AA/wiki_00", DATA)
    corner.write("t/AB/wiki_00.bz2", bz2.compress(DATA))
    corner.write("t/README", b"About these files")
    code, printed = corner.run("t")
    assert code == 2
    assert "--format jsonl" in printed
    code, printed = corner.run("t", "--format", "jsonl")
    assert code == 0
    assert corner.documents() == 600
    assert "1 file (README) not read" in printed


CAUSES = {
    "array": (json.dumps([{"text": "one"}], indent=1).encode(), "JSON array"),
    "utf16": ("".join(LINES).encode("utf-16"), "UTF-16"),
    "utf16be": ("".join(LINES).encode("utf-16-be"), "UTF-16"),
    "pretty": (json.dumps({"text": "one"}, indent=2).encode(), "several lines"),
    "nested": (b'{"data": {"text": "one"}}\n' * 3, "--text-key data.text"),
    "content": (b'{"id": "1", "content": "one text that is long enough"}\n' * 3, "--text-key content"),
}


@pytest.mark.parametrize("name", CAUSES)
@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_the_cause_is_named_and_nothing_is_left(name: str, on_error: str, corner: Corner) -> None:
    """facebookresearch/lingua#42, alexa/massive#8: 0 documents is an error; the next try needs no other flag."""
    data, cause = CAUSES[name]
    corner.write("a.jsonl", data)
    code, printed = corner.run("a.jsonl", "--on-error", on_error)
    assert code == 1
    assert cause in printed
    assert corner.left() == set()
    corner.write("a.jsonl", DATA)
    assert corner.run("a.jsonl")[0] == 0


@pytest.mark.parametrize("name", CAUSES)
@pytest.mark.parametrize("packed", [False, True])
def test_the_cause_is_named_before_a_stream_starts(
    name: str, packed: bool, corner: Corner, capsys: pytest.CaptureFixture[str]
) -> None:
    """facebookresearch/lingua#42, alexa/massive#8: what `tokenize` says after reading, a plan says before."""
    data, cause = CAUSES[name]
    corner.write("in/a.jsonl.gz", gzip.compress(data)) if packed else corner.write("in/a.jsonl", data)
    corner.write("in/b.csv", b"text\n")
    words = ["-M", "nano", "--hf-model-id", str(corner.folder / "tokenizer"), "--data-mode", "stream"]
    words += ["--dataset-dir", str(corner.folder / "in"), "--max-steps", "1", "--dry-run"]
    assert pretrain(words) == 1
    printed = capsys.readouterr()
    assert cause in (said := printed.out + printed.err)
    if name in ("nested", "content"):
        assert "1 file (b.csv) not read" in said
        corner.write("in/a.jsonl.gz", gzip.compress(DATA)) if packed else corner.write("in/a.jsonl", DATA)
        assert pretrain([*words, "--output-dir", str(corner.folder / "run")]) == 0


def test_a_key_inside_another(corner: Corner) -> None:
    """alexa/massive#8: `--text-key data.text` gives the tokens of the same texts one level up."""
    corner.write("deep.jsonl", b"".join(b'{"data": ' + line.strip().encode() + b"}\n" for line in LINES))
    corner.write("flat.jsonl", DATA)
    assert corner.run("deep.jsonl", "--text-key", "data.text")[0] == 0
    assert corner.run("flat.jsonl", name="flat")[0] == 0
    out = corner.folder / "out" / "preprocessed"
    assert pair(out / "a_data.text_document") == pair(out / "flat_text_document")


def test_refusal_far_into_the_input(corner: Corner) -> None:
    """Work done before a bad record is kept for the same input, and does not block another."""
    corner.write("a.jsonl", DATA + b"oops\n")
    assert corner.run("a.jsonl", "--piece-bytes", "2000")[0] == 1
    corner.write("a.jsonl", DATA)
    assert corner.run("a.jsonl")[0] == 0
    assert corner.documents() == 300


def test_links_are_followed_or_refused(corner: Corner) -> None:
    """A linked folder is read once; a link to nothing is an error, not a document less."""
    corner.write("real/b.jsonl", DATA)
    corner.write("in/a.jsonl", DATA)
    (corner.folder / "in" / "sub").symlink_to("../real")
    (corner.folder / "in" / "loop").symlink_to(".")
    assert corner.run("in")[0] == 0
    assert corner.documents() == 600
    (corner.folder / "in" / "c.jsonl").symlink_to("missing")
    code, printed = corner.run("in", name="b")
    assert code == 2
    assert "c.jsonl is a link to missing" in printed


def test_the_lock_is_no_link(corner: Corner) -> None:
    """In a folder that others may write, a link with the lock's name must not empty the file behind it."""
    corner.write("a.jsonl", DATA)
    precious = corner.write("precious", b"PRECIOUS")
    (corner.folder / "out" / "preprocessed").mkdir(parents=True)
    (corner.folder / "out" / "preprocessed" / ".a.lock").symlink_to(precious)
    assert corner.run("a.jsonl")[0] == 1
    assert precious.read_bytes() == b"PRECIOUS"


def test_a_name_that_is_not_utf8(corner: Corner) -> None:
    corner.write(os.fsdecode(b"in/caf\xe9.jsonl"), DATA)
    assert corner.run("in")[0] == 0
    assert corner.documents() == 300


def test_training_on_text_offers_both_ways(corner: Corner, capsys: pytest.CaptureFixture[str]) -> None:
    """`--dataset-dir my.jsonl`: the message has the command that makes tokens, and the flag that streams."""
    path = corner.write("my.jsonl", DATA)
    words = ["-M", "nano", "--hf-model-id", str(corner.folder / "tokenizer"), "--dataset-dir", str(path)]
    assert pretrain([*words, "--dry-run"]) == 1
    printed = capsys.readouterr()
    assert f"--input-dir {path}" in printed.out + printed.err
    assert "use --data-mode stream" in printed.out + printed.err
