"""A run that was killed goes on as if it never had been."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from e2e.jobs import planned, prepared, train
from forkserver import ForkServer, JobFailed

from nemolaunch.launching.prepare import finished_step
from nemolaunch.planning import Plan
from nemolaunch.run import metrics


def test_killed_and_resumed_is_identical_to_never_stopped(
    fork_server: ForkServer, data: str, tmp_path: Path
) -> None:
    common = {"max_steps": 8, "num_gpus": 2, "global_batch_size": 4, "checkpoint_every": 3}
    common |= {"val_check_interval": 4, "limit_val_batches": 1}
    uninterrupted = planned(tmp_path, data, output_dir=str(tmp_path / "whole"), **common)
    whole = train(fork_server, uninterrupted)

    plan = planned(tmp_path, data, output_dir=str(tmp_path / "killed"), **common)
    with pytest.raises(JobFailed, match="-9"):
        train(fork_server, plan, kill_after=5)
    assert plan.run.last_checkpoint() is not None
    rest = train(fork_server, prepared(plan))

    for rank, after in enumerate(rest):
        before = whole[rank]
        assert after["step"] == [4, 5, 6, 7, 8]
        for key in ("loss", "grad_norm", "lr"):
            assert after[key] == before[key][3:], key
        assert after["samples"] == before["samples"][3 * 2 :]
    assert not set(whole[0]["samples"]) & set(whole[1]["samples"])
    assert _validations(plan)[-2:] == _validations(uninterrupted)


def _validations(plan: Plan) -> list[tuple[int, float]]:
    """Step and loss of each validation."""
    return [(row["step"], row["val_loss"]) for row in metrics.read(plan.run.metrics) if "val_loss" in row]


def test_more_steps_continue_a_finished_run(fork_server: ForkServer, data: str, tmp_path: Path) -> None:
    first = planned(tmp_path, data, max_steps=2)
    train(fork_server, first)
    assert finished_step(first) == 2
    longer = planned(tmp_path, data, max_steps=4)
    assert finished_step(longer) is None
    (result,) = train(fork_server, longer)
    assert result["step"] == [3, 4]


def test_a_named_checkpoint_is_continued_in_a_new_run(
    fork_server: ForkServer, data: str, tmp_path: Path
) -> None:
    first = planned(tmp_path, data, max_steps=4, checkpoint_every=2)
    (whole,) = train(fork_server, first)
    (named,) = first.run.checkpoints.glob("*-step=1-*")
    branch = planned(tmp_path, data, max_steps=4, resume=str(named), output_dir=str(tmp_path / "branch"))
    (result,) = train(fork_server, branch)
    assert result["step"] == [3, 4]
    assert result["loss"] == whole["loss"][2:]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"tensor_model_parallel_size": 2}, {"pipeline_model_parallel_size": 2}),
        ({"tensor_model_parallel_size": 2}, {}),
        ({}, {"num_gpus": 2}),
        ({"num_gpus": 2}, {"tensor_model_parallel_size": 2}),
    ],
    ids=["TP2 to PP2", "TP2 to one", "one to DP2", "DP2 to TP2"],
)
def test_the_layout_may_change_on_resume(
    before: dict[str, Any], after: dict[str, Any], fork_server: ForkServer, data: str, tmp_path: Path
) -> None:
    first = planned(tmp_path, data, max_steps=6, checkpoint_every=3, **before)
    whole = train(fork_server, first)
    _forget_after(first, 3)
    rest = train(fork_server, planned(tmp_path, data, max_steps=6, checkpoint_every=3, **after))
    assert rest[0]["step"] == [4, 5, 6]
    assert rest[0]["loss"] == pytest.approx(whole[0]["loss"][3:], rel=2e-5)


def _forget_after(plan: Plan, step: int) -> None:
    """Put the run folder back to how it was when that step's checkpoint had been written."""
    for path in plan.run.checkpoints.iterdir():
        if path.is_symlink() or f"-step={step - 1}-" not in path.name:
            path.unlink() if path.is_symlink() else _remove(path)
    (kept,) = plan.run.checkpoints.iterdir()
    (plan.run.checkpoints / f"{kept.name}-last").symlink_to(kept.name)
    plan.run.finished.unlink()


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder)


def test_metrics_have_one_row_a_step(fork_server: ForkServer, data: str, tmp_path: Path) -> None:
    plan = planned(tmp_path, data, max_steps=4, limit_val_batches=1, val_check_interval=2)
    (result,) = train(fork_server, plan)
    rows = [json.loads(line) for line in plan.run.metrics.read_text().splitlines()]
    steps = [row for row in rows if "loss" in row]
    assert [row["loss"] for row in steps] == pytest.approx(result["loss"])
    assert [row["samples"] for row in steps] == [16, 32, 48, 64]
    assert [row["tokens"] for row in steps] == [1024, 2048, 3072, 4096]
    assert [row["step"] for row in rows if "val_loss" in row] == [2, 4]
    assert rows[-1]["event"] == "end"


def test_a_checkpoint_names_only_nemo(fork_server: ForkServer, data: str, tmp_path: Path) -> None:
    plan = planned(tmp_path, data, max_steps=1)
    train(fork_server, plan)
    last = plan.run.last_checkpoint()
    assert last is not None
    context = last / "context"
    text = (context / "io.json").read_text() + (context / "model.yaml").read_text()
    assert "nemolaunch.nemo2" not in text
    assert "LlamaModel" in text
