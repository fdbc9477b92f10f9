"""Check each update of Megatron's optimizer before it is applied, and skip it or end the run if the job says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from nemolaunch.errors import NemolaunchError
from nemolaunch.planning import Plan
from nemolaunch.ranks.guards import LossGuard, Notice
from nemolaunch.system.atomic_files import write_text

MAX_SKIPPED = 10  # in a row; more cannot be due to bad data
# flags of what to do; a gradient spike is only reported, as --clip-grad limits what it does
POLICY_OF = {
    "not finite": "on_not_finite",
    "loss spike": "on_loss_spike",
    "slow steps": "on_slowness",
    "slow rank": "on_slowness",
    "data starvation": "on_slowness",
}
APPLY, SKIP = 0, 1

Tell = Callable[[Notice, int], None]  # called with a warning and its step


class GuardStop(NemolaunchError):
    """The error with which a guard ends the run."""


class _SkipUpdate(Exception):
    """Raised inside the optimizer's step to leave it before it has changed anything."""


def stop(plan: Plan, kind: str, step: int, text: str) -> GuardStop:
    """Return the error that ends the run, and end its chain of Slurm jobs."""
    name = POLICY_OF[kind]
    advice = f"--{name.replace('_', '-')} {plan.job.get(name)}"
    message = f"{kind} at step {step}: {text} ({advice})"
    if plan.submission is not None:
        write_text(plan.run.slurm_stopped, f"stopped by a guard: {message}\n")
    return GuardStop(message)


class UpdateCheck:
    """Checks loss and gradient norm of every step. The first rank decides.

    Megatron computes the gradient norm over all ranks right before it updates the weights, and waits for it. The
    check reads that number, so it adds no further wait. If updates may be skipped, one all-reduce of four bytes per
    step shares the decision with all ranks.

    Args:
        step: returns the optimizer steps done.
        loss: returns the loss of the step; called on every rank, before the update.

    Attributes:
        skipped: number of updates skipped since the start.
    """

    def __init__(
        self, plan: Plan, tell: Tell, step: Callable[[], int], loss: Callable[[], float | None]
    ) -> None:
        self._plan, self._tell = plan, tell
        self._step_of, self._loss_of = step, loss
        self._policies = {kind: str(plan.job.get(POLICY_OF[kind])) for kind in ("not finite", "loss spike")}
        self._policies["gradient spike"] = "warn"
        self._guard = LossGuard()
        self._in_a_row = 0
        self.skipped = 0

    def watch(self, optimizer: Any, *, first: bool, device: torch.device) -> None:
        """Insert the check after an optimizer has computed the gradient norm and before it updates the weights."""
        self._first, self._device = first, device
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
        """Raise if this update must not be applied."""
        decision = APPLY
        loss = self._loss_of()
        if self._first:
            notice = self._guard.look(loss, grad_norm)
            if notice is not None:
                decision = self._decide(notice)
        if "skip" in self._policies.values():
            shared = torch.tensor(decision, dtype=torch.int32, device=self._device)
            torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.MAX)
            decision = int(shared.item())
        if decision == SKIP:
            self.skipped += 1
            self._in_a_row += 1
            raise _SkipUpdate
        self._in_a_row = 0

    def _decide(self, notice: Notice) -> int:
        """Decide about this update, and report the warning. Raise GuardStop if the policy says so."""
        step, policy = self._step_of() + 1, self._policies[notice.kind]
        if policy == "skip" and self._in_a_row < MAX_SKIPPED:
            self._tell(Notice(notice.kind, notice.text + "; skipping this update"), step)
            return SKIP
        if policy == "skip":
            text = f"{notice.text}; {MAX_SKIPPED} updates in a row were skipped"
            self._tell(Notice(notice.kind, text), step)
            raise stop(self._plan, notice.kind, step, text)
        if notice.begins:
            self._tell(notice, step)
        return APPLY
