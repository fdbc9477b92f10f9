"""Real trainings over two nodes: whatever happens, the losses are those of a run that nothing happened to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from slurm.cluster import Cluster
from slurm.training import ROOT, Training, finish

from nemolaunch.diagnose import diagnose
from nemolaunch.slurm_run import condition

pytestmark = pytest.mark.long
LAYOUT = {"tensor_model_parallel_size": 2}
SECRETS = {"HF_TOKEN": "hf_canary5wJ2vQ8x", "WANDB_API_KEY": "canary7Kd93hRz"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokenised sample text."""
    folder = tmp_path_factory.mktemp("data")
    corpus, tokenizer = ROOT / "examples" / "corpus" / "en.jsonl", ROOT / "examples" / "tokenizer"
    command = ["tokenize", "--hf-tokenizer", tokenizer, "--data-prefix", "en", "--input-dir", corpus]
    subprocess.run(
        [sys.executable, "-m", "nemolaunch.cli.main", *command, "--output-dir", folder],
        check=True,
        timeout=300,
    )
    return folder


@pytest.fixture(scope="module")
def quiet(cluster: Cluster, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """A run that nothing happens to, with tensor parallelism across the two nodes."""
    run = Training(cluster, tmp_path_factory.mktemp("quiet") / "quiet", data, **LAYOUT)
    code, said = finish(run.start())
    assert code == 0, said
    return run


def figures(run: Training) -> list[tuple[int, float, float, int]]:
    return [(row["step"], row["loss"], row["grad_norm"], row["samples"]) for row in run.rows()]


def test_a_quiet_run_reaches_its_last_step(quiet: Training) -> None:
    assert quiet.step() == 12
    assert len(quiet.run.slurm_starts.read_text().splitlines()) == 2  # submitted once, started once


def test_time_limits_cut_a_run_into_jobs_that_change_nothing(
    quiet: Training, cluster: Cluster, data: Path, tmp_path: Path
) -> None:
    """Of two minutes the last one counts as too late: each job leaves after its first steps."""
    run = Training(cluster, tmp_path / "cut", data, **LAYOUT, time="2", leave_before=60)
    code, said = finish(run.start(), 1800)
    assert code == 0, said
    assert len(run.run.slurm_starts.read_text().splitlines()) > 2
    assert "leaving after step" in run.run.rank_log(0).read_text()
    assert figures(run) == figures(quiet)


def test_a_killed_rank_a_hang_and_a_dead_node_change_nothing(
    quiet: Training, client: Cluster, data: Path, tmp_path: Path
) -> None:
    cluster = client
    run = Training(cluster, tmp_path / "hurt", data, **LAYOUT, hang_timeout=30, give_up_after=5)
    run.environment = dict(SECRETS)
    process = run.start()
    run.wait_for_step(4)
    first = run.job()
    os.kill(run.rank_pids(1)[0], signal.SIGKILL)
    cluster.wait_until("next job", lambda: run.job() != first)
    found = diagnose(run.run)
    run.wait_for_step(7)
    second = run.job()
    os.kill(run.rank_pids(1)[0], signal.SIGSTOP)
    cluster.wait_until("end of the hang", lambda: run.job() != second, 300)
    assert "Timeout (0:00:30)!" in run.run.rank_log(0).read_text()
    run.wait_for_step(9)
    cluster.kill_node("n2")
    cluster.wait_until(
        "dead node noticed", lambda: "n2" not in cluster.run("squeue", "-h", "-t", "R", "-o", "%N")
    )
    cluster.start_node("n2")
    code, said = finish(process)
    assert code == 0, said
    assert figures(run) == figures(quiet)
    assert condition(run.plan()).word == "finished"
    assert found is not None
    _no_secrets_in(run.run.root, said)


def _no_secrets_in(folder: Path, said: str) -> None:
    """Neither in any file of the run nor in what was printed."""
    for secret in SECRETS.values():
        assert secret not in said
        for path in folder.rglob("*"):
            if path.is_file():
                assert secret.encode() not in path.read_bytes(), path


def test_cancel_ends_a_run_for_good(client: Cluster, data: Path, tmp_path: Path) -> None:
    run = Training(client, tmp_path / "ended", data, **LAYOUT, max_steps=500)
    process = run.start()
    run.wait_for_step(2)
    cancel = [sys.executable, "-m", "nemolaunch.cli.main", "cancel", str(run.run.root)]
    subprocess.run(cancel, check=True, env=client.environment, timeout=120)
    code, said = finish(process)
    assert code == 1
    assert "cancelled" in said
    assert len(run.run.slurm_starts.read_text().splitlines()) == 2
    assert condition(run.plan()).word == "stopped"
