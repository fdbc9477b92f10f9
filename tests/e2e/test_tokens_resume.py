"""A killed run resumes where it stopped, and ends with the same bytes as one that was not killed."""

from __future__ import annotations

import gzip
import json
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tokens_support import pair, variant, write_jsonl

from nemolaunch.cli.commands.merge import main as merge
from nemolaunch.cli.commands.tokenize import main as tokenize

SCRIPT = Path(__file__).with_name("tokenize_in_small_steps.py")
OUTPUTS = ("data_text_document", "data_validation_text_document")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with a plain and a compressed file, and some bad lines."""
    chance = random.Random(3)
    lines = [json.dumps({"text": "word " * chance.randint(0, 200)}) for _ in range(1500)]
    for place in (10, 700, 1400):
        lines[place] = "bad"
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jsonl").write_text("\n".join(lines[:800]))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress("\n".join(lines[800:]).encode()))
    return folder


def start(tokenizer: Path, source: Path, folder: Path, cache: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), str(tokenizer), str(source), str(folder), str(cache)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("moments", [8, pytest.param(50, marks=pytest.mark.long)])
def test_killed_at_random_moments(moments: int, tmp_path: Path, source: Path, tokens_cache: Path) -> None:
    """Each run is killed at a random moment until one finishes; all end with the same files and no others."""
    tokenizer = variant("small", tmp_path / "tokenizer")
    whole = tmp_path / "whole"
    begin = time.monotonic()
    assert start(tokenizer, source, whole, tokens_cache).wait() == 0
    duration = time.monotonic() - begin
    expected = [pair(whole / name) for name in OUTPUTS]
    rejects = (whole / "data_rejects.jsonl").read_bytes()
    assert rejects.count(b"\n") == 3

    chance = random.Random(moments)
    kills = attempt = 0
    resumed = False
    while kills < moments:
        folder = tmp_path / f"attempt{attempt}"
        attempt += 1
        while True:
            process = start(tokenizer, source, folder, tokens_cache)
            try:
                process.wait(timeout=chance.uniform(0.2, 1.1) * duration)
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                kills += 1
        assert process.returncode == 0
        assert process.stdout is not None
        resumed = resumed or int(process.stdout.read()) > 0
        assert [pair(folder / name) for name in OUTPUTS] == expected
        assert (folder / "data_rejects.jsonl").read_bytes() == rejects
        assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in whole.iterdir())
    assert resumed


def test_a_full_disk_loses_nothing(tmp_path: Path, tokens_cache: Path) -> None:
    """No file may grow beyond a limit, as on a full disk; without the limit the same command resumes."""
    tokenizer = variant("small", tmp_path / "tokenizer")
    source = write_jsonl(tmp_path / "in.jsonl", ["word " * 1000] * 100)
    command = [
        sys.executable, "-m", "nemolaunch.cli.commands.tokenize", "--hf-tokenizer", str(tokenizer), "--data-prefix",
        "data", "--input-dir", str(source), "--workers", "2", "--engine", "hf", "--piece-bytes", "20000",
        "--output-dir",
    ]  # fmt: skip

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))

    made = subprocess.run(
        [*command, str(tmp_path / "out")], preexec_fn=limited, capture_output=True, text=True
    )
    assert made.returncode == 1
    assert "finished work is kept" in made.stderr
    assert "Traceback" not in made.stderr
    folder = tmp_path / "out" / "preprocessed"
    assert [p.name for p in folder.iterdir()] == ["data.unfinished"]
    assert subprocess.run([*command, str(tmp_path / "out")]).returncode == 0
    assert subprocess.run([*command, str(tmp_path / "whole")]).returncode == 0
    assert pair(folder / "data_text_document") == pair(
        tmp_path / "whole" / "preprocessed" / "data_text_document"
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 300 kB; skip the test if this process may not."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_that_gets_free_space(
    small_disk: Path, tmp_path: Path, tokens_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = variant("small", tmp_path / "tokenizer")
    source = write_jsonl(tmp_path / "in.jsonl", ["word " * 1000] * 100)

    def run(folder: Path) -> int:
        words = ["--hf-tokenizer", str(tokenizer), "--data-prefix", "data", "--input-dir", str(source)]
        words += ["--engine", "hf", "--workers", "1", "--piece-bytes", "20000", "--output-dir", str(folder)]
        return tokenize(words)

    assert run(small_disk) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert [p.name for p in (small_disk / "preprocessed").iterdir()] == ["data.unfinished"]
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    assert run(small_disk) == 0
    assert run(tmp_path) == 0
    made = [folder / "preprocessed" / "data_text_document" for folder in (small_disk, tmp_path)]
    assert pair(made[0]) == pair(made[1])

    used = sum(p.stat().st_size for p in (small_disk / "preprocessed").iterdir())
    subprocess.run(["mount", "-o", f"remount,size={used + 300_000}", str(small_disk)], check=True)
    names = [str(path) for path in made]
    assert merge([*names, "--output-prefix", str(small_disk / "merged")]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert [p.name for p in small_disk.iterdir()] == ["preprocessed"]


def test_a_killed_worker_is_reported_and_not_waited_for(
    tmp_path: Path, source: Path, tokens_cache: Path
) -> None:
    """The kernel kills a worker that is out of memory: the run ends with a message, and can be resumed."""
    import psutil

    tokenizer = variant("small", tmp_path / "tokenizer")
    big = write_jsonl(tmp_path / "big.jsonl", ["word " * 10_000] * 400)
    command = [
        sys.executable, "-m", "nemolaunch.cli.commands.tokenize", "--hf-tokenizer", str(tokenizer), "--data-prefix",
        "data", "--input-dir", str(big), "--workers", "2", "--engine", "hf", "--output-dir", str(tmp_path /
        "out"),
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    workers: list[psutil.Process] = []
    while len(workers) < 2 and process.poll() is None:
        workers = [
            worker
            for child in psutil.Process(process.pid).children()
            if any("forkserver" in word for word in child.cmdline())
            for worker in child.children()
        ]
        time.sleep(0.02)
    workers[0].kill()
    _, message = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "a worker was killed" in message
    assert "Traceback" not in message
    assert subprocess.run(command).returncode == 0
