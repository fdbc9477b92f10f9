"""Tokenising as a job array on a real cluster gives the bytes of one run."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest
from slurm.cluster import Cluster
from tokens_support import pair, variant, write_jsonl

from nemolaunch.cli.commands.tokenize import main


def states(job: str) -> set[str]:
    """States of all tasks of a job that Slurm still knows."""
    done = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True)
    return set(re.findall(r"JobState=(\w+)", done.stdout))


def test_an_array_and_its_merge(
    client: Cluster, tmp_path: Path, tokens_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two tasks on two nodes, each with its share of the files, then a job that joins them."""
    tokenizer = variant("small", tmp_path / "tokenizer")
    for i in range(5):
        write_jsonl(tmp_path / "in" / f"{i}.jsonl", [f"file {i} document {j} " * (j % 9) for j in range(100)])
    fixed = ["--hf-tokenizer", str(tokenizer), "--data-prefix", "data", "--input-dir", str(tmp_path / "in")]
    fixed += ["--engine", "hf", "--workers", "1"]
    assert main([*fixed, "--output-dir", str(tmp_path / "one")]) == 0
    out = tmp_path / "out folder"
    words = ["--output-dir", str(out), "--executor", "slurm", "--num-nodes", "2", "--partition", "main"]
    assert main([*fixed, *words]) == 0
    said = capsys.readouterr().out
    array, merge = re.findall(r"submitted job array (\d+) .* job (\d+)", said)[0]
    deadline = time.monotonic() + 240
    while states(merge) - {"COMPLETED"} and time.monotonic() < deadline:
        time.sleep(1)
    logs = "\n".join(p.read_text() for p in sorted(out.rglob("*.log")))
    assert states(merge) == {"COMPLETED"}, logs
    assert states(array) == {"COMPLETED"}, logs
    made = out / "preprocessed" / "data_text_document"
    assert pair(made) == pair(tmp_path / "one" / "preprocessed" / "data_text_document")
    assert sorted(p.name for p in made.parent.glob("*.idx")) == ["data_text_document.idx"]
