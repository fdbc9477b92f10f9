"""The learning rate and the optimizer's settings are those of the plan, whatever a checkpoint has recorded.

NeMo's scheduler restores its whole configuration from a checkpoint, and the optimizer its rates, betas and weight
decay, so that a resumed run would silently ignore new values.
"""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from nemo.lightning.pytorch.optim import LRSchedulerModule
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from nemolaunch.arithmetic.schedule import Schedule
from nemolaunch.planning import Plan


class PlannedRate(LRScheduler):
    """Sets the rate of the plan's schedule. Of a checkpoint's state it takes only the number of steps done."""

    def __init__(self, optimizer: Optimizer, schedule: Schedule) -> None:
        self.schedule = schedule
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """Return the rate of the next update for every group of parameters."""
        rate = self.schedule.rate(self.last_epoch)
        return [rate * group.get("pre_lr_mult", 1.0) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps done, and the schedule in the names of NeMo's own scheduler."""
        s = self.schedule
        return {
            "last_epoch": self.last_epoch,
            "_step_count": self._step_count,
            "max_steps": s.decay_steps,
            "warmup_steps": s.warmup_steps,
            "constant_steps": 0,
            "decay_steps": s.decay_steps - s.warmup_steps,
            "min_lr": s.min_lr,
            "base_lrs": [s.lr for _ in self.base_lrs],
            "_last_lr": self.get_lr(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the number of steps done."""
        self.last_epoch = state_dict["last_epoch"]
        self._step_count = state_dict.get("_step_count", self.last_epoch + 1)


class PlannedSchedule(LRSchedulerModule):
    """Builds the scheduler. It replaces the recipe's in the built task, so checkpoints only record NeMo's classes."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def scheduler(self, model: Any, optimizers: Any) -> Any:
        """Return the scheduler in the form Lightning expects: one step per update."""
        rate = PlannedRate(optimizers, self.schedule)
        return {
            "optimizer": optimizers,
            "lr_scheduler": {"scheduler": rate, "interval": "step", "frequency": 1},
        }


class PlannedOptimizer(Callback):
    """Sets rate, betas, epsilon and weight decay of the plan again after a checkpoint has been loaded."""

    def __init__(self, plan: Plan) -> None:
        self._job = plan.job

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Overwrite what the optimizer restored."""
        for config in trainer.lr_scheduler_configs:
            scheduler: Any = config.scheduler
            scheduler.last_epoch = trainer.global_step
            rates = scheduler.get_lr()
            scheduler._last_lr = rates
            for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
                self._set(group, rate)

    def _set(self, group: dict[str, Any], rate: float) -> None:
        o = self._job.optimizer
        group["lr"] = rate
        group |= {name: value for name, value in (("max_lr", o.lr), ("min_lr", o.min_lr)) if name in group}
        # parameters without weight decay, such as norms and biases, have the multiplier 0
        group["weight_decay"] = o.weight_decay * group.get("pre_wd_mult", 1.0)
        if "betas" in group:
            group["betas"] = (o.adam_beta1, o.adam_beta2)
        if "eps" in group:
            group["eps"] = o.adam_eps
