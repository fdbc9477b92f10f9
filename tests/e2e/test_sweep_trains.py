"""A sweep and its runs for real: started, compared, kept."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from e2e.command import finished, pretrain
from e2e.jobs import TOKENIZER, llama

pytestmark = pytest.mark.long

NEMOLAUNCH = [sys.executable, "-m", "nemolaunch"]
DIVERGES = 1e30


def losses(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: row.get(key) for key in ("step", "loss", "grad_norm", "lr", "val_loss")} for row in rows
            if "loss" in row or "val_loss" in row]  # fmt: skip


def test_runs_are_those_that_start_alone_and_one_that_diverges_stops_no_other(
    data: str, tmp_path: Path
) -> None:
    """Two at a time: the third starts once one of the others is over."""
    flags = ["-M", llama(tmp_path), "--dataset-dir", data, "--hf-model-id", TOKENIZER, "-G", "1", "-gbs", "4"]
    flags += ["--precision", "fp32", "--split", "90,9,1", "--max-steps", "4", "--limit-val-batches", "1"]
    flags += ["--min-lr", "0", "--warmup-steps", "0"]
    command = [*NEMOLAUNCH, "sweep", *flags, "-E", "lr", "--parallel", "2", "--sweep", f"lr=1e-3,{DIVERGES},3e-4"]
    done = finished(command, tmp_path)
    assert done.returncode == 1
    assert "1 run failed: lr-1e+30; the same command with --retry-failed starts it again" in done.stderr
    said = done.stdout.splitlines()
    begun = [line for line in said if " starts (" in line]
    assert begun == [f"{name} starts ({i} of 3)" for i, name in enumerate(("lr-0.001", "lr-1e+30", "lr-0.0003"), 1)]
    first_end = next(i for i, line in enumerate(said) if " finished step " in line or " failed: " in line)
    assert said.index(begun[1]) < first_end < said.index(begun[2])
    assert "3 runs: 2 finished, 1 failed; best lr-0.001, validation loss " in done.stdout

    sweep = tmp_path / "runs" / "lr"
    alone = pretrain(*flags, "--lr", "3e-4", "-E", "alone", cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    assert losses(sweep / "lr-0.0003") == losses(tmp_path / "runs" / "alone")
    assert losses(sweep / "lr-0.0003") != losses(sweep / "lr-0.001")

    before = {path: path.stat().st_mtime_ns for path in sweep.glob("*/**/*")}
    again = finished(command, tmp_path)
    assert again.returncode == 0, again.stderr
    assert " starts (" not in again.stdout
    assert "already finished: lr-0.001, lr-0.0003" in again.stdout
    assert "failed before; --retry-failed starts them again: lr-1e+30" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in sweep.glob("*/**/*")} == before

    shown = finished([*NEMOLAUNCH, "status", "runs/lr"], tmp_path)
    assert shown.returncode == 1
    assert [line.split()[:3] for line in shown.stdout.splitlines()[3:6]] == [
        ["lr-0.001", "finished", "4/4"], ["lr-0.0003", "finished", "4/4"], ["lr-1e+30", "failed", "1/4"]
    ]  # fmt: skip
    assert finished([*NEMOLAUNCH, "report", "runs/lr", "-o", "page.html"], tmp_path).returncode == 0
    assert "lr-0.0003" in (tmp_path / "page.html").read_text()
