"""Every benchmark runs on small inputs and prints its table."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
# litdata, a peer, is not installed with the project.
STREAMS = ("nemolaunch", "nemolaunch-hf", "datasets", "indexed")


def run(script: str, *words: str | Path) -> str:
    """Return what a benchmark prints; it must succeed."""
    command = [sys.executable, str(BENCHMARKS / script), *map(str, words)]
    environment = os.environ | {"COLUMNS": "160"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """The sample corpus as one file."""
    file = tmp_path / "corpus.jsonl"
    samples = (ROOT / "examples" / "corpus").glob("*.jsonl")
    file.write_bytes(b"".join(path.read_bytes() for path in sorted(samples)))
    return file


def test_a_cluster_of_many_nodes() -> None:
    printed = run("slurm_scale.py", "--nodes", "4", "--steps", "500", "--log-kilobytes", "2")
    assert "4 nodes with 8 GPUs each: 32 ranks" in printed
    assert all(command in printed for command in ("dry run", "status", "logs --rank 31", "diagnose"))


@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium to draw the page in")
def test_the_report_page() -> None:
    printed = run("report_scale.py", "--runs", "2", "--steps", "2000")
    assert "spikes in it                                  2   of 2" in printed


def test_tokenising(corpus: Path, tmp_path: Path) -> None:
    tools = ["nemolaunch-fastokens", "nemolaunch-hf", "library-fastokens", "processes-fastokens"]
    printed = run(
        "tokenize/compare.py", "--corpus", corpus, "--tokenizer", ROOT / "examples" / "tokenizer",
        "--output", tmp_path / "out", "--rounds", "1", "--only", *tools,
    )  # fmt: skip
    assert all(f"| {tool} | " in printed for tool in tools)


@pytest.mark.long
def test_conversion(tmp_path: Path) -> None:
    printed = run("convert/compare.py", "--folder", tmp_path / "models", "--size", "250m")
    assert printed.count("| nemolaunch, every bit verified | ") == 2


@pytest.mark.long
def test_estimates_and_layouts() -> None:
    assert "median error" in run("suggest/published.py")
    assert "first for" in run("suggest/recipes.py")


def test_masking() -> None:
    assert "M tokens/s" in run("masking.py")


@pytest.mark.long
def test_streams(corpus: Path, tmp_path: Path) -> None:
    printed = run(
        "stream/compare.py", "--corpus", corpus, "--tokenizer", ROOT / "examples" / "tokenizer",
        "--output", tmp_path / "out", "--seconds", "1", "--rounds", "1", "--only", *STREAMS,
    )  # fmt: skip
    assert all(f"| {kind} | " in printed for kind in STREAMS)


@pytest.mark.long
@pytest.mark.parametrize(
    ("script", "words", "row"),
    [
        ("startup.py", ("--runs", "1", "--imports", "1"), "--dry-run"),
        ("rehearsal.py", ("--rounds", "1", "--steps", "8"), "bf16"),
        ("observing.py", ("--steps", "14"), "RankWatch"),
    ],
)
def test_training(script: str, words: tuple[str, ...], row: str) -> None:
    assert row in run(script, *words)
