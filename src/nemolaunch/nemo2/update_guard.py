"""Looks at each update before it is made, and leaves it out or ends the run where the job says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from nemolaunch.errors import NemolaunchError
from nemolaunch.planning import Plan
from nemolaunch.ranks.guards import LossGuard, Notice
from nemolaunch.system.atomic_files import write_text

MOST_SKIPPED = 10  # in a row; then it is not the data
POLICY_OF = {
    "not finite": "on_not_finite",
    "loss spike": "on_loss_spike",
    "slow steps": "on_slowness",
    "slow rank": "on_slowness",
    "data starvation": "on_slowness",
}
GO_ON, SKIP = 0, 1

Tell = Callable[[Notice, int], None]  # what was seen, and at which step


class GuardStop(NemolaunchError):
    """A guard ends the run."""


class _SkipUpdate(Exception):
    """Leaves the optimizer before it has changed anything."""


def stop(plan: Plan, kind: str, step: int, text: str) -> GuardStop:
    """The error that ends the run, which is also the end of its chain of jobs on Slurm."""
    name = POLICY_OF[kind]
    advice = f"--{name.replace('_', '-')} {plan.job.get(name)}"
    message = f"{kind} at step {step}: {text} ({advice})"
    if plan.submission is not None:
        write_text(plan.run.slurm_stopped, f"stopped by a guard: {message}\n")
    return GuardStop(message)


class UpdateGuard(Callback):
    """Watches loss and gradient norm of every step. The first rank decides.

    Megatron computes the gradient norm over all ranks right before it changes the weights, and waits for it;
    this looks at that number, so a watched step waits no longer than another. Where updates may be left out,
    one all-reduce of four bytes a step tells every rank of it.
    """

    def __init__(self, plan: Plan, tell: Tell) -> None:
        self._plan = plan
        self._tell = tell
        self._policies = {kind: str(plan.job.get(POLICY_OF[kind])) for kind in ("not finite", "loss spike")}
        self._guard = LossGuard()
        self._trainer: Trainer
        self._loss: float | None = None
        self._in_a_row = 0
        self.skipped = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._trainer = trainer
        for optimizer in trainer.optimizers:
            inner = getattr(optimizer, "mcore_optimizer", None)
            if inner is not None:
                self._watch(inner)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        if trainer.is_global_zero:
            loss: Any = trainer.callback_metrics.get("reduced_train_loss")
            self._loss = None if loss is None else float(loss)

    def _watch(self, optimizer: Any) -> None:
        """Look between the optimizer's computing the gradient norm and its changing the weights."""
        chained = hasattr(optimizer, "chained_optimizers")
        norm_name = "get_grad_norm" if chained else "clip_grad_norm"  # where its `step` gets the norm
        norm_of, update, step = (
            getattr(optimizer, name) for name in (norm_name, "step_with_ready_grads", "step")
        )
        norm: float | None = None

        def noting_norm(*args: Any, **kwargs: Any) -> Any:
            nonlocal norm
            found = norm_of(*args, **kwargs)
            norm = None if found is None else float(found)
            return found

        def watched_update(*args: Any, **kwargs: Any) -> Any:
            self._look(norm)
            return update(*args, **kwargs)

        def step_unless_skipped(*args: Any, **kwargs: Any) -> Any:
            try:
                return step(*args, **kwargs)
            except _SkipUpdate:
                return False, norm, None

        setattr(optimizer, norm_name, noting_norm)
        optimizer.step_with_ready_grads, optimizer.step = watched_update, step_unless_skipped

    def _look(self, grad_norm: float | None) -> None:
        """Raises where this update is not to be made."""
        decision = GO_ON
        if self._trainer.is_global_zero:
            notice = self._guard.look(self._loss, grad_norm)
            if notice is not None:
                decision = self._decide(notice)
        if "skip" in self._policies.values():
            wish = torch.tensor(decision, dtype=torch.int32, device=self._trainer.strategy.root_device)
            torch.distributed.all_reduce(wish, op=torch.distributed.ReduceOp.MAX)
            decision = int(wish.item())
        if decision == SKIP:
            self.skipped += 1
            self._in_a_row += 1
            raise _SkipUpdate
        self._in_a_row = 0

    def _decide(self, notice: Notice) -> int:
        """What is to become of this update; tells of it. Raises GuardStop where the policy says so."""
        step, policy = self._trainer.global_step + 1, self._policies[notice.kind]
        if policy == "skip" and self._in_a_row < MOST_SKIPPED:
            self._tell(Notice(notice.kind, notice.text + "; this update is left out"), step)
            return SKIP
        if policy == "skip":
            text = f"{notice.text}; {MOST_SKIPPED} updates in a row were left out"
            self._tell(Notice(notice.kind, text), step)
            raise stop(self._plan, notice.kind, step, text)
        if notice.begins:
            self._tell(notice, step)
        return GO_ON
