"""Sweeps on a cluster: a job for each run, told, started again and cancelled as one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from slurm.cluster import Cluster
from slurm.training import Training

from nemolaunch.cli.main import main
from nemolaunch.planning import Plan
from nemolaunch.slurm import batch_job
from nemolaunch.system.atomic_files import write_json

RUNS = ("lr-0.002", "lr-0.001")


@pytest.fixture
def sweep(client: Cluster, training_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Training:
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


# In place of `python` in a job: ranks of NeMo 2 are `worker.py`, which takes its behaviour from the run folder
LIGHT = """#!/bin/sh
for last; do :; done
[ "$2" = nemo_run.core.runners.fdl_runner ] || exec {python} "$@"
exec {python} {worker} "${{last%%/nemorun/*}}" nemo2
"""


@pytest.mark.long
def test_a_failed_run_is_told_and_started_again_if_asked_for(
    sweep: Training, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ranks that only pretend to train, in the jobs that the command submits."""
    light = tmp_path / "bin" / "python"
    light.parent.mkdir()
    light.write_text(LIGHT.format(python=sys.executable, worker=Path(__file__).with_name("worker.py")))
    light.chmod(0o755)
    sweep.flags["max_steps"] = 100  # the step at which the worker says that it has finished
    words = command(sweep, "--no-chain", "--pre-commands", f'export PATH={light.parent}:"$PATH"')
    folder = str(sweep.run.root)

    def behave(*behaviours: str) -> None:
        for name, behaviour in zip(RUNS, behaviours, strict=True):
            write_json(sweep.run.root / name / "behaviour.json", [behaviour])

    assert main([*words, "--sbatch", "hold"]) == 0
    behave("finish", "crash")
    sweep.cluster.run("scontrol", "release", *queued(sweep))
    sweep.cluster.wait_until("end of both jobs", lambda: not queued(sweep))
    capsys.readouterr()
    assert main(["status", folder]) == 1
    assert capsys.readouterr().out.startswith("2 runs: 1 finished, 1 ended\n")
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "already finished: lr-0.002\n" in said
    assert "failed before; --retry-failed starts them again: lr-0.001" in said
    assert queued(sweep) == []
    behave("finish", "finish")
    assert main([*words, "--retry-failed"]) == 0
    assert "submitted 1 run;" in capsys.readouterr().out
    sweep.cluster.wait_until("end of the job", lambda: not queued(sweep))
    assert main(["status", folder]) == 0
    assert capsys.readouterr().out.startswith("2 runs: 2 finished\n")
