"""Graceful exit: before the time limit, and when asked to, all ranks save together and exit."""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from nemolaunch.nemo2.metrics import MetricsFile
from nemolaunch.planning import Plan
from nemolaunch.ranks.log import log
from nemolaunch.ranks.slurm_rank import signals, this_attempt
from nemolaunch.ranks.time_left import CONTINUE, EXIT, SAVE_AND_EXIT, JobEnd, SlowestSave, decide

FENCE_EVERY_S = 30.0


class GracefulExit(Callback):
    """Ends training between two steps, with a checkpoint, if any rank has a reason to.

    The reasons: a signal, an approaching time limit, and a newer attempt of the same run elsewhere. One small
    all-reduce per step makes every rank take the same decision at the same step; Megatron already waits for the
    GPU in each step (gradient norm), so this adds no further wait.
    """

    def __init__(self, plan: Plan, metrics: MetricsFile) -> None:
        self._run = plan.run
        self._metrics = metrics
        self._on_slurm = plan.submission is not None
        self._end = JobEnd(plan.run, known=self._on_slurm)
        self._save = SlowestSave(plan.run)
        self._before_s: float | None = plan.job.launch.exit_margin
        self._slowest_step_s = 0.0
        self._last_step = time.monotonic()
        self._fenced = time.monotonic()
        self._why = ""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install the signal handlers, and measure saves from now on."""
        signals.install_handlers()
        self._last_step = time.monotonic()
        self._save.measure(trainer.checkpoint_callback, trainer.is_global_zero)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Vote with all other ranks on whether to exit after this step."""
        signals.block()
        now = time.monotonic()
        self._slowest_step_s = max(self._slowest_step_s, now - self._last_step)
        self._last_step = now
        vote = torch.tensor(self._vote(trainer.is_global_zero), dtype=torch.int32, device=pl_module.device)
        torch.distributed.all_reduce(vote, op=torch.distributed.ReduceOp.MAX)
        decision = int(vote.item())
        if decision != CONTINUE and trainer.global_step < trainer.max_steps:
            self._exit(trainer, decision)

    def _vote(self, first: bool) -> int:
        """Return this rank's vote. Only the first rank reads files, and thus knows the time left."""
        if not first:
            return CONTINUE if signals.received is None else SAVE_AND_EXIT
        if not self._is_current():
            self._why = "another attempt of this run has taken over"
            return EXIT
        if signals.received is not None:
            self._end.ask()
        left_s = self._end.left_s()
        vote = decide(
            left_s=left_s,
            kill_wait_s=self._end.kill_wait_s,
            save_s=self._save.seconds,
            step_s=self._slowest_step_s,
            before_s=self._before_s,
            asked=signals.received is not None,
        )
        if signals.received is not None:
            self._why = f"signal {signals.received.name}"
        elif vote != CONTINUE:
            self._why = f"time limit in {left_s:.0f} s"
        if vote == EXIT:
            self._why += f", and a checkpoint takes {self._save.seconds or 0.0:.0f} s"
        return vote

    def _is_current(self) -> bool:
        """Return False if Slurm has restarted the run elsewhere, because it considers this node dead."""
        if not self._on_slurm or time.monotonic() < self._fenced:
            return True
        self._fenced = time.monotonic() + FENCE_EVERY_S
        try:
            words = self._run.slurm_current.read_text().split()
        except OSError:
            return True
        return len(words) != 2 or ".".join(words) == this_attempt()

    def _exit(self, trainer: Trainer, decision: int) -> None:
        trainer.limit_val_batches = 0  # otherwise Lightning validates before it stops
        trainer.should_stop = True
        if decision == EXIT:
            checkpoint: Any = trainer.checkpoint_callback
            checkpoint._last_global_step_saved = trainer.global_step  # so that none is written at the end
            checkpoint.save_last = None  # nor NeMo's own, if this process has not written one yet
        why = self._why or "another rank was asked to exit"
        how = "with a checkpoint" if decision == SAVE_AND_EXIT else "without a checkpoint"
        log.info(f"exiting after step {trainer.global_step} {how}: {why}")
        self._metrics.event("left", trainer.global_step, text=why)
