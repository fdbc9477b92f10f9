"""What a user types reaches Slurm whole, and secrets reach nothing but the job's environment."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from check_jobs import job, resolved
from golden.batch_plans import CASES
from slurm.cluster import Cluster
from slurm.light import LightRun
from slurm.training import Training

from nemolaunch.check import check
from nemolaunch.cli.commands import pretrain


def test_a_hostile_comment_arrives_as_it_was_typed(cluster: Cluster, tmp_path: Path) -> None:
    comment = CASES["hostile"]["comment"]
    run = LightRun(cluster, tmp_path / "run", ["finish"], comment=comment)
    job = run.submit()
    shown = cluster.run("scontrol", "show", "job", job)
    run.wait_until_over()
    assert f"Comment={comment}" in shown
    assert run.run.finished.exists()


def test_whatever_a_comment_holds_it_arrives_or_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    """Random texts of what shells, sbatch and NeMo-Run treat in a way of their own."""
    pieces = [*"a '\"$;#&|!*=,~\\\t\n", "`id`", "$(id)", "%j", "{x}", "名", "--time=1"]
    chance = random.Random(6)
    arrived = 0
    for number in range(60):
        comment = "".join(chance.choices(pieces, k=chance.randint(1, 12)))
        asked = resolved(job("llama3_8b", executor="slurm", comment=comment))
        if any(finding.about == "comment" for finding in check(asked)):
            assert not comment.isprintable() or "\\" in comment
            continue
        run = LightRun(cluster, tmp_path / str(number), ["finish"], comment=comment, sbatch=["hold"])
        submitted = run.submit()
        shown = cluster.run("scontrol", "show", "job", submitted)
        cluster.run("scancel", submitted)
        assert f"Comment={comment} \n" in shown, comment
        arrived += 1
    assert arrived > 20


def test_options_reach_slurm(cluster: Cluster, tmp_path: Path) -> None:
    cluster.run(
        *("scontrol", "create", "reservation", "ReservationName=ours", "StartTime=now", "Duration=60"),
        *("Users=root", "Nodes=n1"),
    )
    try:
        values: dict[str, Any] = {
            "reservation": "ours",
            "constraint": "ib",
            "exclude": "n2",
            "qos": "normal",
            "num_nodes": 1,
        }
        run = LightRun(
            cluster, tmp_path / "run", ["finish"], **values, sbatch=["hold", "nice=7"], gres="gpu:2"
        )
        shown = cluster.run("scontrol", "show", "job", run.submit())
        cluster.run("scancel", *run.queued())
    finally:
        cluster.run("scontrol", "delete", "ReservationName=ours")
    for part in (
        "Reservation=ours",
        "Features=ib",
        "ExcNodeList=n2",
        "QOS=normal",
        "Nice=7",
        "TresPerNode=gres:gpu:2",
    ):
        assert part in shown, part


def test_each_node_gives_its_gpus(cluster: Cluster, tmp_path: Path) -> None:
    run = LightRun(cluster, tmp_path / "run", ["look and finish"], gres=None, chain=False)
    run.submit()
    run.wait_until_over()
    seen = json.loads((run.run.root / "seen.json").read_text())["environment"]
    assert seen["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_the_time_limit_is_the_partitions_own(
    client: Cluster, training_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Training(client, tmp_path / "run", training_data, partition="short")
    assert pretrain.main([*run.words(), "--dry-run", "--show-script"]) == 0
    assert "#SBATCH --time=00:30:00\n" in capsys.readouterr().out


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
