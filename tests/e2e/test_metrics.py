"""The metrics file of a run: what stands in it, and that it survives a kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from e2e.jobs import planned, prepared, train
from forkserver import ForkServer, JobFailed

from nemolaunch.arithmetic import flops_per_token
from nemolaunch.observe.reader import read_history
from nemolaunch.planning import Plan
from nemolaunch.run import metrics


def strict_rows(plan: Plan) -> list[dict[str, Any]]:
    """Every line as strict JSON, which knows no NaN."""

    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    return [json.loads(line, parse_constant=refuse) for line in plan.run.metrics.read_text().splitlines()]


def test_rows_of_steps_validation_and_checkpoints(fork_server: ForkServer, data: str, tmp_path: Path) -> None:
    plan = planned(
        tmp_path, data, max_steps=6, num_gpus=2, log_every=2, checkpoint_every=3, val_check_interval=3,
        limit_val_batches=1,
    )  # fmt: skip
    first, _ = train(fork_server, plan)
    rows = strict_rows(plan)
    start, *_, end = rows
    assert (start["event"], start["step"], start["max_steps"]) == ("start", 0, 6)
    assert start["environment"]["megatron-core"]
    assert (end["event"], end["step"]) == ("end", 6)

    steps = [row for row in rows if "loss" in row]
    assert [row["step"] for row in steps] == [2, 4, 6]
    assert [row["loss"] for row in steps] == [first["loss"][i] for i in (1, 3, 5)]
    assert [row["tokens"] for row in steps] == [2 * plan.tokens_per_step * i for i in (1, 2, 3)]
    flops = flops_per_token(plan.model_row.architecture, 8192, 64)
    for row in steps:
        assert row["tokens_per_s"] == pytest.approx(plan.tokens_per_step / row["step_time_s"])
        assert row["tokens_per_s_per_gpu"] == pytest.approx(row["tokens_per_s"] / 2)
        assert row["tflops_per_gpu"] == pytest.approx(row["tokens_per_s"] * flops.full / 2 / 1e12)
        assert row["tflops_per_gpu_causal"] == pytest.approx(row["tokens_per_s"] * flops.causal / 2 / 1e12)
        assert row["step_time_p50_s"] <= row["step_time_p95_s"] <= row["step_time_max_s"]
        assert 0 < row["data_wait_s"] < row["step_time_s"]
        assert row["memory_peak_bytes"] > 100e6

    validations = [row for row in rows if "val_loss" in row]
    assert [row["step"] for row in validations] == [3, 6]
    saved = [row for row in rows if row.get("event") == "checkpoint"]
    assert {row["step"] for row in saved} == {3, 6}
    assert all(row["seconds"] > 0 for row in saved)


def test_tensorboard_gets_the_same_figures(fork_server: ForkServer, data: str, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    plan = planned(tmp_path, data, max_steps=2)
    train(fork_server, plan)
    events = EventAccumulator(str(plan.run.tensorboard))
    events.Reload()
    steps = [row for row in strict_rows(plan) if "loss" in row]
    for name in ("tokens_per_s", "tflops_per_gpu", "data_wait_s", "memory_peak_bytes"):
        assert [event.value for event in events.Scalars(name)] == pytest.approx([row[name] for row in steps])
    assert [event.value for event in events.Scalars("reduced_train_loss")] == pytest.approx(
        [row["loss"] for row in steps]
    )


def test_a_killed_run_is_read_as_one_curve(fork_server: ForkServer, data: str, tmp_path: Path) -> None:
    plan = planned(tmp_path, data, max_steps=6, checkpoint_every=2)
    with pytest.raises(JobFailed, match="-9"):
        train(fork_server, plan, kill_after=5)
    with open(plan.run.metrics, "a") as file:
        file.write('{"step": 5, "lo')  # cut off in the middle of a line
    train(fork_server, prepared(plan))

    history = read_history(plan.run.root)
    assert list(history.series["loss"].steps) == [1, 2, 3, 4, 5, 6]
    assert history.attempts == 2
    (restart,) = [mark for mark in history.marks if mark.kind == "restart"]
    assert restart.step == 4
    assert len([row for row in metrics.read(plan.run.metrics) if row.get("event") == "start"]) == 2


def test_mlflow_gets_the_same_figures_and_one_run_over_restarts(
    fork_server: ForkServer, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With MLflow's own store of files in the place of a server."""
    from mlflow.tracking import MlflowClient

    address = (tmp_path / "mlruns").as_uri()
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    environment = [f"MLFLOW_TRACKING_URI={address}", "MLFLOW_ALLOW_FILE_STORE=true"]
    plan = planned(tmp_path, data, max_steps=4, checkpoint_every=2, mlflow=True, env=environment)
    with pytest.raises(JobFailed, match="-9"):
        train(fork_server, plan, kill_after=3)
    train(fork_server, prepared(plan))
    client = MlflowClient(tracking_uri=address)
    (experiment,) = [e for e in client.search_experiments() if e.name == "pretraining"]
    (run,) = client.search_runs([experiment.experiment_id])
    figures = client.get_metric_history(run.info.run_id, "tokens_per_s")
    assert [figure.step for figure in figures] == [1, 2, 3, 4]
    assert run.data.metrics["restarts"] == 1
