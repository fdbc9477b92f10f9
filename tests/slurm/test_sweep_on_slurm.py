"""Sweeps on a cluster: a job for each run, told, started again and cancelled as one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from slurm.cluster import Cluster
from slurm.training import Training

from nemolaunch.cli.main import main
from nemolaunch.planning import Plan
from nemolaunch.slurm import batch_job

RUNS = ("lr-0.002", "lr-0.001")


@pytest.fixture
def sweep(
    client: Cluster, training_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Training:
    """A sweep of two small runs, each on a node of its own."""
    monkeypatch.setenv("PATH", client.environment["PATH"])
    made = Training(client, tmp_path / "sweep", training_data, num_nodes=1, precision="fp32", max_steps=3)
    del made.flags["lr"]
    monkeypatch.setenv("OMP_NUM_THREADS", made.environment["OMP_NUM_THREADS"])
    return made


def command(sweep: Training, *more: str) -> list[str]:
    return ["sweep", *sweep.words(), "--sweep", "lr=2e-3,1e-3", *more]


def queued(sweep: Training) -> list[str]:
    """Jobs of the sweep's runs."""
    names = [batch_job.job_name(Plan.load(sweep.run.root / name / "plan.json")) for name in RUNS]
    return sweep.cluster.run("squeue", "-h", "-o", "%i", f"--name={','.join(names)}").split()


def test_cancel_ends_all_runs_of_a_sweep(sweep: Training, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(sweep.run.root)
    assert main(command(sweep, "--sbatch", "hold")) == 0
    assert "submitted 2 runs; see `nemolaunch status " in capsys.readouterr().out
    assert len(queued(sweep)) == 2
    assert main(command(sweep, "--sbatch", "hold")) == 0
    assert "already running or queued: lr-0.002, lr-0.001" in capsys.readouterr().out
    assert len(queued(sweep)) == 2
    assert main(["status", folder]) == 0
    assert capsys.readouterr().out.startswith("2 runs: 2 waiting\n")
    assert main(["cancel", folder]) == 0
    assert capsys.readouterr().out == "cancelled lr-0.002, lr-0.001\n"
    assert queued(sweep) == []
    assert main(["status", folder]) == 1
    assert capsys.readouterr().out.startswith("2 runs: 2 stopped\n")
    assert main(["cancel", folder]) == 0
    assert "no run of this sweep is going on or queued" in capsys.readouterr().out


@pytest.mark.long
def test_runs_train_as_jobs_and_a_failed_one_is_started_again_if_asked_for(
    sweep: Training, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One job fails as long as a file is there, before it trains."""
    broken = tmp_path / "broken"
    broken.touch()
    fails = f"! [ -e {broken} ] || case $SLURM_JOB_NAME in *{RUNS[1]}*) exit 5 ;; esac"
    words = command(sweep, "--no-chain", "--pre-command", fails)
    folder = str(sweep.run.root)

    def over() -> bool:
        return not queued(sweep)

    assert main(words) == 0
    sweep.cluster.wait_until("end of both jobs", over, 600, 1)
    capsys.readouterr()
    assert main(["status", folder]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("2 runs: 1 finished, 1 ended; best lr-0.002, ")
    assert main(words) == 0
    assert "failed before; --retry-failed starts them again: lr-0.001" in capsys.readouterr().out
    assert over()
    os.unlink(broken)
    assert main([*words, "--retry-failed"]) == 0
    assert "submitted 1 run;" in capsys.readouterr().out
    sweep.cluster.wait_until("end of the job", over, 600, 1)
    assert main(["status", folder]) == 0
    assert "2 runs: 2 finished; best lr-0.00" in capsys.readouterr().out
