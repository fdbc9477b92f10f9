"""Submitting from a machine that sees the cluster through ssh alone."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from slurm.cluster import Cluster
from slurm.login import Login, why_not
from slurm.training import ROOT, Training, finish
from tokens_support import pair

from nemolaunch.cli.commands.tokenize import main as tokenize
from nemolaunch.planning import Plan
from nemolaunch.slurm import batch_job

SECRETS = {"HF_TOKEN": "hf_canary8Zq1mPv4", "WANDB_API_KEY": "canary2Lw8xTn6Bd"}


@pytest.fixture
def login(cluster: Cluster, tmp_path: Path) -> Iterator[Login]:
    reason = why_not()
    if reason and os.environ.get("NEMOLAUNCH_REQUIRE_SLURM"):
        pytest.fail(f"no login node for the tests: {reason}")
    if reason:
        pytest.skip(f"no login node: {reason}")
    made = Login(cluster, tmp_path / "both")
    yield made
    made.close()


def words_of(login: Login, cluster: Cluster, data: Path, **flags: Any) -> list[object]:
    """A job whose data and tokenizer are the cluster's alone, named from its home folder."""
    shutil.copytree(data, login.home / "data")
    shutil.copytree(ROOT / "examples" / "tokenizer", login.home / "tokenizer")
    run = Training(cluster, login.home / "unused" / "run", data, **flags)
    run.flags |= {"dataset_dir": "data", "hf_model_id": login.home / "tokenizer", "output_dir": "runs/far"}
    return ["pretrain", "--ssh", "cluster", "--ssh-python", sys.executable, *run.words()]


def test_a_job_is_submitted_as_the_dry_run_shows_it(
    login: Login, cluster: Cluster, training_data: Path
) -> None:
    words = words_of(login, cluster, training_data, sbatch="hold", detach=True)
    shown = login.run(*words, "--dry-run", "--show-script")
    assert not (login.home / "runs").exists()
    said = login.run(*words, environment=SECRETS)
    plan = Plan.load(login.home / "runs" / "far" / "plan.json")
    script = batch_job.script_path(plan)
    job = plan.run.slurm_submitted.read_text().strip()
    assert f"submitted job {job}: cluster:{script}" in said
    assert shown.startswith(f"batch script {script}:\n\n{script.read_text()}\n")
    assert cluster.run("scontrol", "write", "batch_script", job, "-").strip() == script.read_text().strip()
    assert cluster.state(job) == "PENDING"
    _no_secrets(login.files, Path("/dev/shm"))

    assert f"waiting: JobHeldUser (job {job})" in login.run("status", "--ssh", "cluster", "runs/far")
    again = login.run(*words, check=False)
    assert f"on cluster: job {job} of this run is already in the queue" in again
    assert login.run("cancel", "--ssh=cluster", "runs/far") == f"cancelled job {job}\n"
    assert cluster.state(job) == "CANCELLED"


def test_text_is_tokenised_there(login: Login, cluster: Cluster, tmp_path: Path) -> None:
    """The jobs run the code that was sent, which is not installed there, after it is gone from where it was sent to."""
    shutil.copytree(ROOT / "examples" / "tokenizer", login.home / "tokenizer")
    shutil.copytree(ROOT / "examples" / "corpus", login.home / "corpus")
    words = ["tokenize", "--hf-tokenizer", "tokenizer", "--data-prefix", "demo", "--input-dir", "corpus"]
    words += ["--output-dir", "data", "--engine", "hf", "--workers", "1"]
    on_slurm = ["--executor", "slurm", "--num-nodes", "2", "--partition", "main", "--unit-bytes", "1000000"]
    said = login.run(*words, *on_slurm, "--ssh", "cluster", "--ssh-python", sys.executable)
    (join,) = re.findall(r"and job (\d+), which joins", said)
    made = login.home / "data" / "preprocessed"
    shown = login.run("status", "--ssh", "cluster", "--ssh-python", sys.executable, "data")
    assert shown.startswith("tokenising: demo in ")
    deadline = time.monotonic() + 200
    while cluster.state(join) != "COMPLETED" and time.monotonic() < deadline:
        time.sleep(1)
    logs = "\n".join(path.read_text() for path in made.glob("demo.slurm/*.log"))
    assert cluster.state(join) == "COMPLETED", logs
    words[2] = str(ROOT / "examples" / "tokenizer")
    here = ["--input-dir", str(ROOT / "examples" / "corpus"), "--output-dir", str(tmp_path)]
    assert tokenize([*words[1:], *here]) == 0
    assert pair(made / "demo_text_document") == pair(tmp_path / "preprocessed" / "demo_text_document")


def test_what_is_missing_there_is_reported_here(login: Login, cluster: Cluster, training_data: Path) -> None:
    words = words_of(login, cluster, training_data, partition="mian")
    shutil.rmtree(login.home / "data")
    said = login.run(*words, check=False)
    assert "error[slurm-partition]" in said
    assert "error[data-unreadable]" in said
    assert not (login.home / "runs").exists()


def test_a_host_that_cannot_be_reached_is_named(login: Login, cluster: Cluster, training_data: Path) -> None:
    words = words_of(login, cluster, training_data)
    login.close()
    assert "error: --ssh cluster: ssh: connect to host 127.0.0.1" in login.run(*words, check=False)


@pytest.mark.long
def test_a_training_is_followed_from_afar(login: Login, cluster: Cluster, training_data: Path) -> None:
    words = words_of(login, cluster, training_data, tensor_model_parallel_size=2)
    code, said = finish(login.start(words, environment=SECRETS))
    assert code == 0, said
    assert "step 20/20" in said
    assert "finished step 20; checkpoint" in said
    assert all(secret not in said for secret in SECRETS.values())
    _no_secrets(login.files, Path("/dev/shm"))
    assert "finished" in login.run("status", "--ssh", "cluster", "runs/far")
    assert "SLURM" not in login.run("logs", "--ssh", "cluster", "runs/far", "--lines", "3")
    assert "already finished step 20" in login.run(*words)


def _no_secrets(*folders: Path) -> None:
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                assert not [name for name, secret in SECRETS.items() if secret.encode() in content], path
