"""W&B and MLflow on the first rank, for a framework whose own loggers begin a new run at every restart."""

from __future__ import annotations

import math
import os
import time
from typing import Any

from nemolaunch.errors import NemolaunchError
from nemolaunch.planning import Plan
from nemolaunch.system import folder_identity
from nemolaunch.system.atomic_files import write_text

Figures = dict[str, Any]


def wandb_id(plan: Plan) -> str:
    """Return the W&B run id of a run folder, the same after every restart, and wherever the folder is moved."""
    own = folder_identity.current(plan.run.root)
    return own.id if own else "chosen-at-launch"


class Wandb:
    """One W&B run that every attempt continues."""

    def __init__(self, plan: Plan) -> None:
        try:
            import wandb
        except ImportError:
            raise NemolaunchError("--wandb needs W&B where the ranks run: pip install wandb") from None
        logging, experiment = plan.job.logging, plan.job.launch.experiment
        self._run = wandb.init(
            project=logging.wandb_project or experiment,
            name=logging.wandb_name or experiment,
            dir=str(plan.run.root),
            id=wandb_id(plan),
            resume="allow",
        )
        # steps that are trained twice would otherwise be dropped: W&B's own count cannot go back
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, figures: Figures, step: int) -> None:
        """Log figures of a step."""
        self._run.log({**figures, "step": step})

    def close(self) -> None:
        """Upload what is left."""
        self._run.finish()


class Mlflow:
    """One MLflow run that every attempt continues; the run folder keeps its id."""

    def __init__(self, plan: Plan) -> None:
        try:
            from mlflow.tracking import MlflowClient
        except ImportError:
            raise NemolaunchError(
                "--mlflow needs MLflow where the ranks run: pip install mlflow-skinny"
            ) from None
        self._client = MlflowClient(tracking_uri=os.environ.get("MLFLOW_TRACKING_URI"))
        kept = plan.run.mlflow_run
        if not kept.exists():
            write_text(kept, f"{self._new_run(plan)}\n")
        self._id = kept.read_text(encoding="utf-8").strip()

    def _new_run(self, plan: Plan) -> str:
        name = plan.job.logging.mlflow_experiment or plan.job.launch.experiment
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        return str(self._client.create_run(experiment, run_name=plan.run.root.name).info.run_id)

    def log(self, figures: Figures, step: int) -> None:
        """Log figures of a step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        made = [Metric(name, float(value), now, step) for name, value in figures.items()]
        self._client.log_batch(self._id, metrics=made)

    def close(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self._id)


class Loggers:
    """Those of a job.

    Raises:
        NemolaunchError: one of them is not installed.
    """

    def __init__(self, plan: Plan) -> None:
        self._all: list[Wandb | Mlflow] = [Wandb(plan)] if plan.job.logging.wandb else []
        self._all += [Mlflow(plan)] if plan.job.logging.mlflow else []

    def log(self, row: Figures, step: int) -> None:
        """Log the numbers of a row of the metrics file."""
        figures = {
            name: value for name, value in row.items() if name not in ("step", "time") and _is_number(value)
        }
        for each in self._all if figures else []:
            each.log(figures, step)

    def close(self) -> None:
        """End all of them."""
        for each in self._all:
            each.close()


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isinf(value)
