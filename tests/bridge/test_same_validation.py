"""Validation sets with Megatron-Bridge: the losses are those of NeMo 2, and training stays as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bridge.test_same_training import BRIDGE, job, train_bridge
from e2e.jobs import train as train_nemo
from forkserver import ForkServer, JobFailed
from held_out import held_out_corpora

from nemolaunch.planning import Plan
from nemolaunch.run import metrics


def validations(plan: Plan) -> list[dict[str, Any]]:
    """The rows of validations."""
    return [row for row in metrics.read(plan.run.metrics) if "val_loss" in row]


def test_the_losses_of_the_sets_are_nemos(
    bridge_server: ForkServer, fork_server: ForkServer, tmp_path: Path
) -> None:
    """Sets that are found beside the data, on two pipeline stages, with several micro batches."""
    corpora = held_out_corpora(tmp_path / "corpora")
    values: dict[str, Any] = {
        "dataset_dir": [str(corpora)], "max_steps": 4, "micro_batch_size": 4, "lr": 1e-2, "split": None,
        "limit_val_batches": 2, "val_check_interval": 2, "num_gpus": 2, "pipeline_model_parallel_size": 2,
    }  # fmt: skip
    plan, other = job(tmp_path / "bridge", "", **values, **BRIDGE), job(tmp_path / "nemo2", "", **values)
    assert len(plan.validation_sets) == 2
    trained = train_bridge(bridge_server, plan)
    nemo = train_nemo(fork_server, other)
    assert trained[-1]["loss"] == nemo[0]["loss"]
    rows, right = validations(plan), validations(other)
    assert [row["step"] for row in rows] == [row["step"] for row in right] == [2, 4]
    names = ["val_loss", *(f"val_loss/{each.name}" for each in plan.validation_sets)]
    for row, expected in zip(rows, right, strict=True):
        for name in names:
            assert row[name] == pytest.approx(expected[name], rel=1e-6)


def test_a_share_of_the_data_is_validated_as_nemo_does(
    bridge_server: ForkServer, fork_server: ForkServer, data: str, tmp_path: Path
) -> None:
    """On the same samples every time, also by a run that was killed and resumes, on two tensor parallel ranks."""
    values: dict[str, Any] = {
        "max_steps": 6, "lr": 1e-2, "limit_val_batches": 2, "val_check_interval": 2, "checkpoint_every": 3,
        "num_gpus": 2, "tensor_model_parallel_size": 2,
    }  # fmt: skip
    plan, other = job(tmp_path / "bridge", data, **values, **BRIDGE), job(tmp_path / "nemo2", data, **values)
    with pytest.raises(JobFailed, match="-9"):
        train_bridge(bridge_server, plan, kill_after=5)
    train_bridge(bridge_server, plan)
    train_nemo(fork_server, other)
    rows, right = ({row["step"]: row["val_loss"] for row in validations(each)} for each in (plan, other))
    assert sorted(rows) == [2, 4, 6]
    assert rows == pytest.approx(right, rel=1e-6)
