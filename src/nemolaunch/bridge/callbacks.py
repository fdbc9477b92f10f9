"""Our own callbacks, in Bridge's training loop."""

from __future__ import annotations

from typing import Any

import torch
from megatron.bridge.training.callbacks import Callback, CallbackContext

from nemolaunch.bridge.loss import LOSS, StepLoss
from nemolaunch.planning import Plan
from nemolaunch.ranks import rank_process
from nemolaunch.ranks.step_metrics import StepMetrics
from nemolaunch.ranks.update_check import UpdateCheck


def callbacks_of(plan: Plan, loss: StepLoss) -> list[Callback]:
    """Return the callbacks of a run, in the order in which they must be called."""
    metrics = Metrics(plan, loss)
    return [PlannedOptimizer(plan), metrics, Updates(plan, loss, metrics), End(plan)]


class PlannedOptimizer(Callback):
    """Sets rate, betas, epsilon and weight decay of the plan before each update, whatever a checkpoint has recorded."""

    def __init__(self, plan: Plan) -> None:
        self._optimizer, self._schedule = plan.job.optimizer, plan.schedule

    def on_train_step_start(self, context: CallbackContext) -> None:
        """Overwrite what Bridge's schedule and the checkpoint have set."""
        assert context.optimizer is not None
        rate = self._schedule.rate(context.state.train_state.step)
        for group in context.optimizer.param_groups:
            self._set(group, rate)

    def _set(self, group: dict[str, Any], rate: float) -> None:
        o = self._optimizer
        group["lr"] = rate * group.get("lr_mult", 1.0)
        # parameters without weight decay, such as norms and biases, have the multiplier 0
        group["weight_decay"] = o.weight_decay * group.get("wd_mult", 1.0)
        if "betas" in group:
            group["betas"] = (o.adam_beta1, o.adam_beta2)
        if "eps" in group:
            group["eps"] = o.adam_eps


class Metrics(Callback):
    """Writes the metrics file on the first rank; `StepMetrics` says what is in it."""

    def __init__(self, plan: Plan, loss: StepLoss) -> None:
        self._plan, self._loss = plan, loss
        self.rows = StepMetrics(plan)
        self.rows.tell_loggers = self._tell_tensorboard
        self._tensorboard: Any = None
        self._rate: float | None = None

    def on_train_start(self, context: CallbackContext) -> None:
        """Open the file, and write the `start` event."""
        self._time_saving(context.state)
        if torch.distributed.get_rank() == 0:
            tokenizer = getattr(context.state.cfg.dataset, "tokenizer", None)
            self.rows.start(context.state.train_state.step, getattr(tokenizer, "vocab_size", None))

    def _time_saving(self, state: Any) -> None:
        """Take the time of a save out of that of steps. `on_checkpoint_save` follows it."""
        pass

    def on_train_step_start(self, context: CallbackContext) -> None:
        """Note the rate, which Bridge changes before the step ends."""
        assert context.optimizer is not None
        self._loss.begin()
        self._rate = context.optimizer.param_groups[0]["lr"]

    def on_train_step_end(self, context: CallbackContext) -> None:
        """Write a row for the step, and report a slowdown."""
        state = context.state
        step = state.train_state.step + 1
        loss = self._loss.value()  # on every rank
        if not self.rows.is_due(step):
            return
        self.rows.step(
            step,
            loss=loss,
            lr=self._rate,
            grad_norm=None if context.grad_norm is None else float(context.grad_norm),
            samples=state.train_state.consumed_train_samples + self._plan.job.batch.global_batch_size,
            waited_s=None,
        )

    def on_checkpoint_save(self, context: CallbackContext) -> None:
        """Write the `checkpoint` event."""
        self.rows.saved(context.state.train_state.step, None)

    def on_eval_start(self, context: CallbackContext) -> None:
        """Pause the clock of steps."""
        self.rows.pause()

    def on_eval_end(self, context: CallbackContext) -> None:
        """Write a row for the validation."""
        found = (context.total_loss_dict or {}).get(LOSS)
        self.rows.validated(context.state.train_state.step, None if found is None else float(found))

    def on_train_end(self, context: CallbackContext) -> None:
        """Write the `end` event, and close the file."""
        if self.rows.open:
            self.rows.end(context.state.train_state.step, None)

    def _tell_tensorboard(self, figures: dict[str, Any], step: int) -> None:
        pass


class Updates(Callback):
    """Checks loss and gradient norm of every step, before the update is applied."""

    def __init__(self, plan: Plan, loss: StepLoss, metrics: Metrics) -> None:
        self._step = 0
        self._check = UpdateCheck(plan, metrics.rows.notice, lambda: self._step, loss.value)
        metrics.rows.skipped = lambda: self._check.skipped

    def on_train_start(self, context: CallbackContext) -> None:
        """Insert the check into the optimizer."""
        first = torch.distributed.get_rank() == 0
        device = torch.device("cuda", torch.cuda.current_device())
        self._check.watch(context.optimizer, first=first, device=device)

    def on_train_step_start(self, context: CallbackContext) -> None:
        """Note the step."""
        self._step = context.state.train_state.step


class End(Callback):
    """Ends a run after its last step, without Bridge's additional validation and test."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def on_train_end(self, context: CallbackContext) -> None:
        """Turn both off, and record the end."""
        state = context.state.train_state
        state.do_valid = state.do_test = False
        if torch.distributed.get_rank() == 0:
            rank_process.note_end(self._plan, state.step)
