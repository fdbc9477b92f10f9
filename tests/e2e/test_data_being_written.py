"""Training data that `nemolaunch tokenize` is still writing are refused, with the time left, or waited for."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from check_jobs import TOKENIZER
from tokens_support import write_jsonl

from nemolaunch.cli.commands.tokenize import main as tokenize
from nemolaunch.facts.unfinished_data import look_at_unfinished, wait
from nemolaunch.findings import Finding, errors
from nemolaunch.job import Job
from nemolaunch.planning import make_plan


def findings(folder: Path, data: Path) -> list[Finding]:
    values = {
        "model_name": "nano",
        "hf_model_id": TOKENIZER,
        "output_dir": str(folder / "run"),
        "max_steps": 10,
    }
    plan = make_plan(Job().with_values(**values, dataset_dir=(str(data),)))
    return [f for f in plan.findings if f.code in ("data-unfinished", "data-unreadable")]


def words(folder: Path, name: str, *more: str) -> list[str]:
    fixed = ["--hf-tokenizer", TOKENIZER, "--data-prefix", name, "--input-dir", str(folder / f"{name}.jsonl")]
    return [*fixed, "--output-dir", str(folder / "data"), "--workers", "1", "--engine", "hf", *more]


@pytest.mark.parametrize("command", ["tokenize", "interrupted"])
def test_a_folder_that_is_being_filled(command: str, tmp_path: Path, tokens_cache: Path) -> None:
    """The command is stopped half-way, so that it cannot end meanwhile."""
    write_jsonl(tmp_path / "first.jsonl", ["some words " * 50] * 20)
    write_jsonl(tmp_path / "more.jsonl", ["some more words " * 300] * 3000)
    data = tmp_path / "data" / "preprocessed"
    assert tokenize(words(tmp_path, "first")) == 0
    assert findings(tmp_path, data) == []
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "nemolaunch.cli.commands.tokenize",
            *words(tmp_path, "more", "--piece-bytes", "50000"),
        ]
    )
    while not (under_way := look_at_unfinished([str(data)])) or not under_way[0].goes_on:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGSTOP)
    for path in (tmp_path / "data", data, data / "more_text_document"):
        (finding,) = errors(findings(tmp_path, path))
        assert "nemolaunch tokenize is still writing more in" in finding.message
        assert "% done" in finding.message
        assert "--wait-for-data" in finding.message
    if command == "tokenize":
        process.send_signal(signal.SIGCONT)
        told: list[str] = []
        wait((str(data),), told.append)
        assert process.wait() == 0
        assert told == [] or "waiting for data: nemolaunch tokenize is writing more" in told[0]
        assert findings(tmp_path, data) == []
        return
    process.kill()
    process.wait()
    (finding,) = findings(tmp_path, data)
    assert not errors([finding])
    assert "was interrupted" in finding.message
    wait((str(data),), print)
    assert tokenize(words(tmp_path, "more")) == 0
    assert findings(tmp_path, data) == []
