"""What a user types reaches Slurm whole, and secrets reach nothing but the job's environment."""

from __future__ import annotations

from pathlib import Path

from golden.batch_plans import CASES
from slurm.cluster import Cluster
from slurm.light import LightRun


def test_a_hostile_comment_arrives_as_it_was_typed(cluster: Cluster, tmp_path: Path) -> None:
    comment = CASES["hostile"]["comment"]
    run = LightRun(cluster, tmp_path / "run", ["finish"], comment=comment)
    job = run.submit()
    shown = cluster.run("scontrol", "show", "job", job)
    run.wait_until_over()
    assert f"Comment={comment}" in shown
    assert run.run.finished.exists()


def test_a_folder_of_another_script_works(cluster: Cluster, tmp_path: Path) -> None:
    run = LightRun(cluster, tmp_path / "läufe-訓練", ["leave", "finish"])
    run.submit()
    run.wait_until_over()
    assert run.run.finished.exists()
    assert "nemolaunch: finished" in run.output()


def test_secrets_of_the_environment_stay_out_of_what_slurm_shows(cluster: Cluster, tmp_path: Path) -> None:
    run = LightRun(cluster, tmp_path / "run", ["run"])
    cluster.environment["HF_TOKEN"] = secret = "hf_canary3kLw9"
    try:
        job = run.submit()
        cluster.wait_until("running job", lambda: run.run.slurm_next.exists())
        shown = cluster.run("scontrol", "show", "job", job) + cluster.run(
            "scontrol", "write", "batch_script", job, "-"
        )
        cluster.run("scancel", job)
        run.wait_until_over()
    finally:
        del cluster.environment["HF_TOKEN"]
    assert secret not in shown
    assert secret not in run.output()
    assert not [p for p in run.run.root.rglob("*") if p.is_file() and secret.encode() in p.read_bytes()]
