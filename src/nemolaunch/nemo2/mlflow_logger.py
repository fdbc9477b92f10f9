"""Metrics for MLflow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import MLFlowLogger

from nemolaunch.errors import NemolaunchError
from nemolaunch.planning import Plan
from nemolaunch.system.atomic_files import write_text
from nemolaunch.system.installation import how_to_install


class OneRun(MLFlowLogger, Callback):
    """Lightning's logger, with one MLflow run that every attempt continues.

    NeMo logs the step number as a metric, so Lightning passes it on as a float such as 3.0, which MLflow does not
    accept as a step.
    """

    def __init__(self, plan: Plan) -> None:
        self._kept = plan.run.mlflow_run
        super().__init__(
            experiment_name=plan.job.logging.mlflow_experiment or plan.job.launch.experiment,
            run_name=plan.run.root.name,
            tracking_uri=os.environ.get("MLFLOW_TRACKING_URI"),
            run_id=self._kept.read_text().strip() if self._kept.exists() else None,
        )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the id of the MLflow run for later attempts."""
        if trainer.is_global_zero:
            write_text(self._kept, f"{self.run_id}\n")

    def log_metrics(self, metrics: Mapping[str, float], step: Any = None) -> None:
        """Log metrics with an integer step."""
        super().log_metrics(metrics, None if step is None else int(step))


def loggers(plan: Plan) -> list[OneRun]:
    """Return MLflow's logger, if `--mlflow` is set.

    Raises:
        NemolaunchError: MLflow is not installed.
    """
    if not plan.job.logging.mlflow:
        return []
    try:
        import mlflow  # noqa: F401
    except ImportError:
        raise NemolaunchError(f"--mlflow needs MLflow: {how_to_install('mlflow')}") from None
    return [OneRun(plan)]
