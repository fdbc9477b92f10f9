"""A search for real: killed while its second trial begins, it goes on with that one."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import optuna
import pytest
from e2e.command import finished, started, wait_for
from e2e.jobs import TOKENIZER, llama

from nemolaunch.planning import Plan
from nemolaunch.sweeps.results import results_of
from nemolaunch.sweeps.search import JOURNAL, STUDY

pytestmark = pytest.mark.long


def test_a_killed_search_goes_on(data: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nemolaunch", "sweep", "-M", llama(tmp_path), "--dataset-dir", data]
    command += [
        "--hf-model-id",
        TOKENIZER,
        "-G",
        "1",
        "-gbs",
        "4",
        "--precision",
        "fp32",
        "--split",
        "90,9,1",
    ]
    command += ["--max-steps", "3", "--limit-val-batches", "1", "--warmup-steps", "1", "--min-lr", "1e-6"]
    command += ["-E", "lr", "--sweep", "lr=1e-4..1e-2:log", "--sampler", "optuna:tpe", "--trials", "2"]
    folder = tmp_path / "runs" / "lr"
    first = started(command, tmp_path)
    wait_for(lambda: (folder / "trial-1" / "plan.json").exists(), first)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    kept = (folder / "trial-0" / "metrics.jsonl").read_text()

    done = finished(command, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "trial-0 of 2" not in done.stdout
    assert "trial-1 of 2" in done.stdout
    assert (folder / "trial-0" / "metrics.jsonl").read_text() == kept

    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))
    )
    study = optuna.load_study(study_name=STUDY, storage=storage)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 2
    for trial, run in zip(study.trials, results_of(folder).runs, strict=True):
        assert trial.value == run.val_loss
        assert Plan.load(folder / run.name / "plan.json").job.get("lr") == trial.params["lr"]
    assert len({trial.params["lr"] for trial in study.trials}) == 2
    value, number = min((trial.value, trial.number) for trial in study.trials)
    assert f"best trial-{number}, validation loss {value:.4f}" in done.stdout

    again = finished(command, tmp_path)
    assert again.returncode == 0
    assert "trial-" in again.stdout
    assert " of 2:" not in again.stdout
    other = finished([*command, "--weight-decay", "0.3"], tmp_path)
    assert other.returncode == 2
    assert "trial-0 finished with other flags: --weight-decay" in other.stderr
