"""The phases of NeMo's start that lie inside the trainer."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer

from nemolaunch.planning import Plan
from nemolaunch.ranks import phases


class Phases(Callback):
    """Says when the data have their index, and the model is built: Lightning sets up the data first."""

    def __init__(self, plan: Plan) -> None:
        self._run = plan.run

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Say that the model is built now."""
        phases.begin(self._run, "building the model")
