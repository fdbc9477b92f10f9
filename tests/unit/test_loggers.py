"""W&B and MLflow as they are told by the first rank: one run over restarts, with every number of a row."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
from golden.batch_plans import saved_plan

from nemolaunch.planning import Plan
from nemolaunch.ranks.loggers import Loggers, wandb_id
from nemolaunch.system import folder_identity

ROWS: list[dict[str, Any]] = [
    {"step": 1, "time": 1.0, "loss": 9.5, "event": "x"},
    {"step": 2, "time": 2.0, "loss": math.nan},
]


def logging_plan(folder: Path, **values: object) -> Plan:
    plan = saved_plan(folder)
    return dataclasses.replace(plan, job=plan.job.with_values(**values))


def test_mlflow_continues_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    address = (tmp_path / "mlruns").as_uri()
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    plan = logging_plan(tmp_path / "run", mlflow=True, mlflow_experiment="mine")
    for row in ROWS:
        loggers = Loggers(plan)
        loggers.log(row, int(row["step"]))
        loggers.close()
    client = MlflowClient(tracking_uri=address)
    experiment = client.get_experiment_by_name("mine")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [each.step for each in history] == [1, 2]
    assert history[0].value == 9.5
    assert math.isnan(history[1].value)
    assert set(run.data.metrics) == {"loss"}


def test_wandb_has_the_id_of_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    plan = logging_plan(tmp_path / "run", wandb=True)
    own = folder_identity.claim(plan.run.root).id
    assert wandb_id(plan) == own
    loggers = Loggers(plan)
    loggers.log(ROWS[0], 1)
    assert wandb.run is not None
    assert wandb.run.id == own
    assert wandb.run.summary["loss"] == 9.5
    assert wandb.run.summary["step"] == 1
    loggers.close()
    assert len(list((plan.run.root / "wandb").glob(f"offline-run-*/run-{own}.wandb"))) == 1
