"""The check of each update, in NeMo's training."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from nemolaunch.planning import Plan
from nemolaunch.ranks.update_check import Tell, UpdateCheck


class UpdateGuard(Callback):
    """Checks loss and gradient norm of every step, before the update is applied."""

    def __init__(self, plan: Plan, tell: Tell) -> None:
        self._trainer: Trainer
        self._loss: float | None = None
        self._check = UpdateCheck(plan, tell, lambda: self._trainer.global_step, lambda: self._loss)

    @property
    def skipped(self) -> int:
        """Number of updates skipped since the start."""
        return self._check.skipped

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Insert the check into every optimizer."""
        self._trainer = trainer
        for optimizer in trainer.optimizers:
            inner = getattr(optimizer, "mcore_optimizer", None)
            if inner is not None:
                self._check.watch(inner, first=trainer.is_global_zero, device=trainer.strategy.root_device)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Note the loss of the step on the first rank."""
        if trainer.is_global_zero:
            loss: Any = trainer.callback_metrics.get("reduced_train_loss")
            self._loss = None if loss is None else float(loss)
