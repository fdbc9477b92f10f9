"""The tutorial about clusters, on the test cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from slurm.cluster import Cluster
from tutorials import typed

from nemolaunch.run import metrics

pytestmark = pytest.mark.long


def test_a_run_on_a_cluster(client: Cluster, tmp_path: Path) -> None:
    said = typed("cluster.md", tmp_path, ACCOUNT="root", PARTITION="main", IMAGE="none")
    run = tmp_path / "runs" / "cluster"
    assert max(row["step"] for row in metrics.read(run / "metrics.jsonl") if "loss" in row) == 16
    assert (run / "finished.json").exists()
    assert "#SBATCH" in said
