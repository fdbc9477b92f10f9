"""Our own callbacks, in Bridge's training loop."""

from __future__ import annotations

from typing import Any

from megatron.bridge.training.callbacks import Callback, CallbackContext

from nemolaunch.bridge.datasets import Datasets
from nemolaunch.bridge.graceful_exit import GracefulExit
from nemolaunch.bridge.loss import StepLoss
from nemolaunch.bridge.profile import PytorchTrace
from nemolaunch.bridge.ramp import PlannedBatches
from nemolaunch.bridge.rank import device_of, is_first
from nemolaunch.bridge.saving import TimedSaves, around_saves
from nemolaunch.bridge.stream import Stream
from nemolaunch.bridge.validation_sets import ValidationSets, num_own_batches
from nemolaunch.planning import Plan
from nemolaunch.ranks import rank_process
from nemolaunch.ranks.comparison import RankComparison
from nemolaunch.ranks.loggers import Loggers
from nemolaunch.ranks.progress import ProgressWatch
from nemolaunch.ranks.step_metrics import StepMetrics, samples_by_prefix
from nemolaunch.ranks.update_check import UpdateCheck

# Bridge already writes these to TensorBoard
LOGGED_BY_BRIDGE = frozenset({"loss", "lr", "grad_norm", "step", "time", "samples"})


def callbacks_of(plan: Plan, loss: StepLoss, data: Datasets, batches: PlannedBatches) -> list[Callback]:
    """Return the callbacks of a run, in the order in which they must be called.

    The metrics come before those that may end the run, so that the row of the last step is written.
    """
    metrics = Metrics(plan, loss, data, batches)
    found = [
        PlannedOptimizer(plan),
        batches,
        metrics,
        Updates(plan, loss, metrics),
        Ranks(plan, loss, metrics),
    ]
    found += [] if plan.job.checkpoint.checkpoint_every else [TimedSaves()]
    found.append(GracefulExit(plan, metrics.rows.event))
    found += [Stream(plan, metrics.rows, loss, data)] if plan.stream is not None else []
    found += [PytorchTrace(plan)] if plan.job.logging.profile == "pytorch" else []
    progress = Progress(plan, metrics)
    if plan.validation_sets or num_own_batches(plan):
        found.append(ValidationSets(plan, metrics.rows, progress, data, loss))
    return [*found, progress, End(plan, data)]


class PlannedOptimizer(Callback):
    """Sets rate, betas, epsilon and weight decay of the plan before each update, whatever a checkpoint has recorded."""

    def __init__(self, plan: Plan) -> None:
        self._optimizer, self._schedule = plan.job.optimizer, plan.schedule

    def on_train_step_start(self, context: CallbackContext) -> None:
        """Overwrite what Bridge's schedule and the checkpoint have set."""
        self._set_all(context)

    def on_train_step_end(self, context: CallbackContext) -> None:
        """Restore what the step had: Bridge's schedule has set the next, and its log reads it now."""
        self._set_all(context)

    def _set_all(self, context: CallbackContext) -> None:
        assert context.optimizer is not None
        rate = self._schedule.rate(context.state.train_state.step)
        for group in context.optimizer.param_groups:
            self._set(group, rate)

    def _set(self, group: dict[str, Any], rate: float) -> None:
        o = self._optimizer
        group["lr"] = rate * group.get("lr_mult", 1.0)
        # of Bridge's own schedule, which checkpoints record
        group |= {name: value for name, value in (("max_lr", o.lr), ("min_lr", o.min_lr)) if name in group}
        # parameters without weight decay, such as norms and biases, have the multiplier 0
        group["weight_decay"] = o.weight_decay * group.get("wd_mult", 1.0)
        if "betas" in group:
            group["betas"] = (o.adam_beta1, o.adam_beta2)
        if "eps" in group:
            group["eps"] = o.adam_eps


class Metrics(Callback):
    """Writes the metrics file on the first rank; `StepMetrics` says what is in it."""

    def __init__(self, plan: Plan, loss: StepLoss, data: Datasets, batches: PlannedBatches) -> None:
        self._plan, self._loss, self._data, self._batches = plan, loss, data, batches
        self.rows = StepMetrics(plan)
        self._rate: float | None = None
        self._samples = 0

    def on_train_start(self, context: CallbackContext) -> None:
        """Open the file, and write the `start` event."""
        self._loss.listen_to(context.model)
        if not is_first():
            return
        from torch.utils.tensorboard import SummaryWriter

        # Bridge's own are on the last rank
        writer = SummaryWriter(log_dir=str(self._plan.run.tensorboard))
        self._loggers = Loggers(self._plan)

        def tell_loggers(row: dict[str, Any], step: int) -> None:
            self._loggers.log(row, step)
            for name, value in row.items():
                if name not in LOGGED_BY_BRIDGE and value is not None:
                    writer.add_scalar(name, value, step)

        self.rows.tell_loggers = tell_loggers
        tokenizer = getattr(context.state.cfg.dataset, "tokenizer", None)
        self._samples = context.state.train_state.consumed_train_samples
        self.rows.start(context.state.train_state.step, getattr(tokenizer, "vocab_size", None))
        around_saves(self.rows.pause, lambda step: self.rows.saved(step, self._by_prefix()))

    def on_train_step_start(self, context: CallbackContext) -> None:
        """Note the rate, which Bridge changes before the step ends."""
        assert context.optimizer is not None
        self._loss.begin()
        self._rate = context.optimizer.param_groups[0]["lr"]

    def on_train_step_end(self, context: CallbackContext) -> None:
        """Write a row for the step, and report a slowdown."""
        state = context.state.train_state
        loss = self._loss.value()  # on every rank
        step = state.step + 1
        self._samples = state.consumed_train_samples + self._batches.sizes.size(state.step)
        if not self.rows.is_due(step):
            return
        self.rows.step(
            step,
            loss=loss,
            lr=self._rate,
            grad_norm=None if context.grad_norm is None else float(context.grad_norm),
            samples=self._samples,
            waited_s=self._loss.waited_s,
        )

    def on_train_end(self, context: CallbackContext) -> None:
        """Write the `end` event, and close the file."""
        if self.rows.open:
            self.rows.end(context.state.train_state.step, self._by_prefix())
            self._loggers.close()

    def _by_prefix(self) -> list[int] | None:
        return samples_by_prefix(self._data.train, self._samples)


class Updates(Callback):
    """Checks loss and gradient norm of every step, before the update is applied."""

    def __init__(self, plan: Plan, loss: StepLoss, metrics: Metrics) -> None:
        self._plan, self._step = plan, 0
        self._check = UpdateCheck(plan, metrics.rows.notice, lambda: self._step, loss.value)
        metrics.rows.skipped = lambda: self._check.skipped

    def on_train_start(self, context: CallbackContext) -> None:
        """Insert the check into the optimizer."""
        self._check.watch(context.optimizer, first=is_first(), device=device_of(self._plan))

    def on_train_step_start(self, context: CallbackContext) -> None:
        """Note the step."""
        self._step = context.state.train_state.step


class Ranks(Callback):
    """Compares the ranks of a job with each other, every 50 steps."""

    def __init__(self, plan: Plan, loss: StepLoss, metrics: Metrics) -> None:
        self._plan, self._loss = plan, loss
        self._comparison = RankComparison(metrics.rows.notice)

    def on_train_start(self, context: CallbackContext) -> None:
        """Gather the hosts of all ranks."""
        self._comparison.start()

    def on_train_step_end(self, context: CallbackContext) -> None:
        """Compare the ranks, every 50 steps."""
        step = context.state.train_state.step + 1
        self._comparison.step(step, self._loss.waited_s, device_of(self._plan))


class Progress(Callback):
    """Reports when nothing has finished for a long time, and ends the process at the limit."""

    def __init__(self, plan: Plan, metrics: Metrics) -> None:
        self._watch = ProgressWatch(plan.job.guards.hang_timeout, metrics.rows.event)

    def on_train_start(self, context: CallbackContext) -> None:
        """Start the timer."""
        around_saves(lambda: self._saving(True), lambda step: self._saving(False))
        self._watch.start(first=is_first())

    def _saving(self, is_saving: bool) -> None:
        self._watch.saving = is_saving

    def on_train_step_end(self, context: CallbackContext) -> None:
        """Reset the timer."""
        self._watch.progress(context.state.train_state.step + 1)

    def on_eval_step_end(self, context: CallbackContext) -> None:
        """Reset the timer."""
        self._watch.progress(context.state.train_state.step)

    def on_train_end(self, context: CallbackContext) -> None:
        """Stop the timer."""
        self._watch.stop()


class End(Callback):
    """Ends a run after its last step, without Bridge's additional validation and test."""

    def __init__(self, plan: Plan, data: Datasets) -> None:
        self._plan, self._data = plan, data

    def on_train_end(self, context: CallbackContext) -> None:
        """Turn both off, and record the end."""
        state = context.state.train_state
        state.do_valid = state.do_test = False
        if is_first():
            steps = self._data.steps
            rank_process.note_end(self._plan, state.step, end_of_data=steps is not None and steps.ended)
