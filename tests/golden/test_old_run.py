"""A run folder written by version 0.1.0 is still read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from golden.old_run_support import unpack

import nemolaunch as nl
from nemolaunch.cli.commands import convert, pretrain, report, status
from nemolaunch.planning import Plan


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return unpack(tmp_path)


def test_its_plan_is_read_under_the_names_of_today(run: Path) -> None:
    written = json.loads((run / "plan.json").read_text())["values"]
    job = Plan.load(run / "plan.json").job
    assert job.checkpoint.keep_latest == written["keep"] == 2
    assert job.launch.max_failures == written["give_up_after"] == 5
    assert job.launch.exit_margin == written["leave_before"] == 90
    assert job.optimizer.lr == 1e-3


def test_its_status_and_metrics(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status.main([str(run), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["state"], told["step"], told["checkpoint_step"]) == ("finished", 8, 8)
    losses = [row["loss"] for row in nl.Run(run).metrics() if "loss" in row]
    assert losses == [
        json.loads(line)["loss"]
        for line in (run / "metrics.jsonl").read_text().splitlines()
        if '"loss"' in line
    ]
    assert len(losses) == 8


def test_its_report(run: Path, tmp_path: Path) -> None:
    assert report.main([str(run), "-o", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "--keep-latest" in page
    assert "5.892" in page  # its validation loss


def test_it_can_be_resumed(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)  # its data was named from there
    assert pretrain.main(["--plan", str(run), "--max-steps", "12", "--dry-run"]) == 0
    told = capsys.readouterr()
    assert str(run) in told.out
    assert "error" not in told.err
    assert "run-of-other" not in told.err


def test_its_checkpoint_is_converted(run: Path, tmp_path: Path) -> None:
    assert convert.main([str(run), str(tmp_path / "hf"), "--to", "hf", "--verify", "bits"]) == 0
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["num_hidden_layers"] == 2
