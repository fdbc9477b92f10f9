"""Sweeps on a cluster: a job for each run, told, started again and cancelled as one."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from slurm.cluster import Cluster
from slurm.training import Training

from nemolaunch.cli.main import main
from nemolaunch.planning import Plan
from nemolaunch.slurm import batch_job

WITHIN_S = 600
RUNS = ("lr-0.002", "lr-0.001")


@pytest.fixture
def sweep(client: Cluster, training_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Training:
    """A sweep of two small runs, each on a node of its own."""
    monkeypatch.setenv("PATH", client.environment["PATH"])
    made = Training(client, tmp_path / "sweep", training_data, num_nodes=1, precision="fp32", max_steps=3)
    del made.flags["lr"]
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


def command(sweep: Training, *more: str) -> list[str]:
    return ["sweep", *sweep.words(), "--sweep", "lr=2e-3,1e-3", *more]


def queued(sweep: Training, *runs: str) -> list[str]:
    """Jobs of these runs of the sweep, by default of all."""
    names = [batch_job.job_name(Plan.load(sweep.run.root / name / "plan.json")) for name in runs or RUNS]
    return sweep.cluster.run("squeue", "-h", "-o", "%i", f"--name={','.join(names)}").split()


def is_over(sweep: Training, name: str) -> bool:
    """Whether none of the jobs of a run is left."""
    return not queued(sweep, name)


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
def test_a_failed_run_is_told_and_started_again_if_asked_for(
    sweep: Training, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster, folder, words = sweep.cluster, str(sweep.run.root), command(sweep, "--no-chain")
    assert main([*words, "--sbatch", "hold"]) == 0
    for name, order in (("lr-0.002", None), ("lr-0.001", "raise RuntimeError made up")):
        if order:
            sweep.order(0, order)
        cluster.run("scontrol", "release", *queued(sweep, name))
        cluster.wait_until(f"end of {name}", functools.partial(is_over, sweep, name), WITHIN_S)
    capsys.readouterr()
    assert main(["status", folder]) == 1
    assert capsys.readouterr().out.startswith("2 runs: 1 finished, 1 ended; best lr-0.002, ")
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "already finished: lr-0.002\n" in said
    assert "failed before; --retry-failed starts them again: lr-0.001" in said
    assert queued(sweep) == []
    assert main([*words, "--retry-failed"]) == 0
    assert "submitted 1 run;" in capsys.readouterr().out
    cluster.wait_until("end of the job", lambda: not queued(sweep), WITHIN_S)
    assert main(["status", folder]) == 0
    assert capsys.readouterr().out.startswith("2 runs: 2 finished; best lr-0.00")
