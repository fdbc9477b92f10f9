"""Leaving in time: before the time limit, and when asked to, all ranks save together and end."""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from nemolaunch.nemo2.slurm_rank import signals, this_start
from nemolaunch.plan import Plan

FIRST_SAVE_GUESS_S = 60.0  # until one has been measured
SAFETY_S = 30.0
FENCE_EVERY_S = 30.0
STACKS_BEFORE_END_S = 20
STAY, SAVE_AND_LEAVE, LEAVE = 0, 1, 2


class Leave(Callback):
    """Ends training between two steps, with a checkpoint, when any rank has a reason to.

    The reasons: a signal, the time limit coming near, and a newer start of the same run elsewhere. One small
    all-reduce a step makes every rank take the same decision at the same step; Megatron already waits for the
    GPU in each step (gradient norm), so this adds no wait of its own.
    """

    def __init__(self, plan: Plan) -> None:
        self._run = plan.run
        end = os.environ.get("NEMOLAUNCH_END_TIME", "")
        self._end = float(end) if end.isdigit() else None
        self._before_s: float | None = plan.values["leave_before"]
        self._longest_save_s = 0.0
        self._longest_step_s = 0.0
        self._last_step = time.monotonic()
        self._fenced = time.monotonic()
        self._why = ""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        signals.install_handlers()
        self._last_step = time.monotonic()
        checkpoint: Any = trainer.checkpoint_callback
        save = checkpoint._save_checkpoint

        def timed(*args: Any, **kwargs: Any) -> None:
            start = time.monotonic()
            save(*args, **kwargs)
            self._longest_save_s = max(self._longest_save_s, time.monotonic() - start)

        checkpoint._save_checkpoint = timed

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        self._longest_step_s = max(self._longest_step_s, now - self._last_step)
        self._last_step = now
        wish = torch.tensor(self._wish(trainer.is_global_zero), dtype=torch.int32, device=pl_module.device)
        torch.distributed.all_reduce(wish, op=torch.distributed.ReduceOp.MAX)
        decision = int(wish.item())
        if decision != STAY and trainer.global_step < trainer.max_steps:
            self._leave(trainer, decision)

    def _wish(self, first: bool) -> int:
        if first and not self._is_current():
            self._why = "another start of this run has taken over"
            return LEAVE
        if signals.received is not None:
            self._why = f"signal {signals.received.name}"
            return SAVE_AND_LEAVE
        if first and self._end is not None:
            left_s = self._end - time.time()
            save_s = self._longest_save_s or FIRST_SAVE_GUESS_S
            before_s = max(2 * save_s, 120.0) if self._before_s is None else self._before_s
            if left_s < before_s + self._longest_step_s:
                self._why = f"time limit in {left_s:.0f} s"
                return SAVE_AND_LEAVE if left_s > self._longest_save_s + 1 else LEAVE
        return STAY

    def _is_current(self) -> bool:
        """False when Slurm has started the run again elsewhere, because it took this node for dead."""
        if time.monotonic() < self._fenced:
            return True
        self._fenced = time.monotonic() + FENCE_EVERY_S
        try:
            words = self._run.slurm_current.read_text().split()
        except OSError:
            return True
        return len(words) != 2 or ".".join(words) == this_start()

    def _leave(self, trainer: Trainer, decision: int) -> None:
        trainer.limit_val_batches = 0  # Lightning would validate before it stops
        trainer.should_stop = True
        if decision == LEAVE:
            checkpoint: Any = trainer.checkpoint_callback
            checkpoint._last_global_step_saved = trainer.global_step  # so that none is written at the end
        if self._why:
            how = "with a checkpoint" if decision == SAVE_AND_LEAVE else "without a checkpoint"
            print(f"nemolaunch: leaving after step {trainer.global_step} {how}: {self._why}", flush=True)
            if trainer.is_global_zero:
                row = {"event": "left", "step": trainer.global_step, "time": time.time(), "text": self._why}
                with open(self._run.metrics, "a", encoding="utf-8") as metrics:
                    metrics.write(json.dumps(row) + "\n")


class HangWatch(Callback):
    """Ends the process when no step, validation batch or save finishes in time, after writing all stacks.

    The stacks come from a C thread and the end from an alarm of the kernel, so that both work while Python
    itself is stuck inside a collective. Ranks end a little after they wrote, so that each gets to write.
    """

    def __init__(self, timeout_s: int) -> None:
        self._timeout_s = timeout_s

    def _step_done(self, *args: Any, **kwargs: Any) -> None:
        faulthandler.dump_traceback_later(self._timeout_s)
        signal.alarm(self._timeout_s + STACKS_BEFORE_END_S)

    on_train_start = _step_done
    on_train_batch_end = _step_done
    on_validation_batch_end = _step_done
    on_train_end = _step_done

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        faulthandler.cancel_dump_traceback_later()
        signal.alarm(0)
