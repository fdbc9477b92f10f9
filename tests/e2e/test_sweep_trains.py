"""A sweep and its runs for real: trained one after another, compared, kept."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from e2e.command import finished, pretrain, processes_about, started, wait_for
from e2e.jobs import TOKENIZER, llama

from nemolaunch.observe.status import Status, status

pytestmark = pytest.mark.long

NEMOLAUNCH = [sys.executable, "-m", "nemolaunch"]


def results(run: Path) -> list[dict[str, Any]]:
    """What each step and validation of a run gave."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    names = ("step", "loss", "grad_norm", "lr", "val_loss")
    return [{name: row.get(name) for name in names} for row in rows if row.get("loss") or row.get("val_loss")]


def test_the_runs_of_a_sweep_are_those_that_start_alone(data: str, tmp_path: Path) -> None:
    flags = ["-M", llama(tmp_path), "--dataset-dir", data, "--hf-model-id", TOKENIZER, "-G", "1", "-gbs", "4"]
    flags += ["--precision", "fp32", "--split", "90,9,1", "--max-steps", "3", "--limit-val-batches", "1"]
    flags += ["--min-lr", "1e-5", "--warmup-steps", "1"]
    command = [*NEMOLAUNCH, "sweep", *flags, "-E", "lr", "--sweep", "lr=1e-3,3e-4"]
    done = finished(command, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:4] == [
        "lr-0.001 starts (1 of 2)",
        "lr-0.001 finished step 3",
        "lr-0.0003 starts (2 of 2)",
        "lr-0.0003 finished step 3",
    ]
    assert lines[4].startswith("2 runs: 2 finished; best lr-0.001, validation loss ")

    sweep = tmp_path / "runs" / "lr"
    alone = pretrain(*flags, "--lr", "3e-4", "-E", "alone", cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    assert len(results(sweep / "lr-0.0003")) == 4  # three steps and a validation
    assert results(sweep / "lr-0.0003") == results(tmp_path / "runs" / "alone")
    assert results(sweep / "lr-0.0003") != results(sweep / "lr-0.001")

    before = {path: path.stat().st_mtime_ns for path in sweep.glob("*/**/*")}
    again = finished(command, tmp_path)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.splitlines()[0] == "already finished: lr-0.001, lr-0.0003"
    assert again.stdout.splitlines()[1:] == lines[4:]
    assert {path: path.stat().st_mtime_ns for path in sweep.glob("*/**/*")} == before

    shown = finished([*NEMOLAUNCH, "status", "runs/lr"], tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert [line.split()[:3] for line in shown.stdout.splitlines()[3:]] == [
        ["lr-0.001", "finished", "3/3"],
        ["lr-0.0003", "finished", "3/3"],
    ]
    assert finished([*NEMOLAUNCH, "report", "runs/lr", "-o", "page.html"], tmp_path).returncode == 0
    assert "lr-0.0003" in (tmp_path / "page.html").read_text()


def test_cancel_ends_one_run_with_a_checkpoint_and_the_sweep_goes_on(data: str, tmp_path: Path) -> None:
    flags = ["-M", llama(tmp_path), "--dataset-dir", data, "--hf-model-id", TOKENIZER, "-G", "1", "-gbs", "4"]
    flags += ["--precision", "fp32", "--limit-val-batches", "0", "--max-steps", "10000"]
    command = started([*NEMOLAUNCH, "sweep", *flags, "-E", "seeds", "--sweep", "seed=1,2"], tmp_path)
    sweep = tmp_path / "runs" / "seeds"

    def trains(name: str) -> bool:
        return (sweep / name / "metrics.jsonl").exists() and bool(results(sweep / name))

    def cancelled(*where: str) -> Status:
        done = finished([*NEMOLAUNCH, "cancel", str(sweep.joinpath(*where))], tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        return status(sweep / (where or ("seed-2",))[0])

    wait_for(lambda: trains("seed-1"), command)
    first = cancelled("seed-1")
    wait_for(lambda: trains("seed-2"), command)
    second = cancelled()
    assert command.wait(120) == 130
    for run in (first, second):
        assert (run.state, run.detail) == ("stopped", "cancelled by the user")
        assert run.checkpoint_step == run.step > 0  # that of its last step
    assert processes_about(sweep) == {}
    assert (tmp_path / "err").read_text() == "interrupted\n"
    said = (tmp_path / "out").read_text().splitlines()
    assert said[:3] == [
        "seed-1 starts (1 of 2)",
        "seed-1 was stopped: cancelled by the user",
        "seed-2 starts (2 of 2)",
    ]
