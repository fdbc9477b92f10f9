"""The vote of all ranks, after each step, on whether to exit together, with or without a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from nemolaunch.planning import Plan
from nemolaunch.ranks.log import log
from nemolaunch.ranks.slurm_rank import signals, this_attempt
from nemolaunch.ranks.time_left import CONTINUE, EXIT, SAVE_AND_EXIT, JobEnd, SlowestSave, decide
from nemolaunch.system.processes import SAVE_SIGNAL

FENCE_EVERY_S = 30.0


class ExitVote:
    """Decides between two steps whether the run ends here, if any rank has a reason to.

    The reasons: a signal, an approaching time limit, and a newer attempt of the same run elsewhere. One small
    all-reduce per step makes every rank take the same decision at the same step; Megatron already waits for the
    GPU in each step (gradient norm), so this adds no further wait.

    Args:
        tell: called with kind, step and `text`.

    Attributes:
        save: the time that checkpoints take, to be measured by whoever saves them if `is_limited`.
        is_limited: whether the job has a time limit.
    """

    def __init__(self, plan: Plan, tell: Callable[..., None]) -> None:
        self._run = plan.run
        self._tell = tell
        self._max_steps = plan.max_steps
        self._outlives_its_command = plan.outlives_its_command
        self.is_limited = plan.submission is not None
        self._end = JobEnd(plan.run, known=self.is_limited)
        self.save = SlowestSave(plan.run)
        self._before_s: float | None = plan.job.launch.exit_margin
        self._slowest_step_s = 0.0
        self._last_step = time.monotonic()
        self._fenced = time.monotonic()
        self._why = ""

    def start(self) -> None:
        """Install the signal handlers in place of those of the framework."""
        signals.install_handlers()
        self._last_step = time.monotonic()

    def after(self, step: int, *, first: bool, device: torch.device) -> int:
        """Vote with all other ranks after a step. Return the decision, which is also logged if it is to exit."""
        signals.block()
        now = time.monotonic()
        self._slowest_step_s = max(self._slowest_step_s, now - self._last_step)
        self._last_step = now
        vote = torch.tensor(self._vote(first), dtype=torch.int32, device=device)
        torch.distributed.all_reduce(vote, op=torch.distributed.ReduceOp.MAX)
        decision = int(vote.item())
        if decision == CONTINUE or step >= self._max_steps:
            return CONTINUE
        why = self._why or "another rank was asked to exit"
        how = "with a checkpoint" if decision == SAVE_AND_EXIT else "without a checkpoint"
        log.info(f"exiting after step {step} {how}: {why}")
        self._tell("left", step, text=why)
        return decision

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
            save_s=self.save.seconds,
            step_s=self._slowest_step_s,
            before_s=self._before_s,
            asked=signals.received is not None,
        )
        if signals.received is not None:
            stopped = signals.received == SAVE_SIGNAL and not self._outlives_its_command
            self._why = "the command was stopped" if stopped else f"signal {signals.received.name}"
        elif vote != CONTINUE:
            self._why = f"time limit in {left_s:.0f} s"
        if vote == EXIT:
            self._why += f", and a checkpoint takes {self.save.seconds or 0.0:.0f} s"
        return vote

    def _is_current(self) -> bool:
        """Return False if Slurm has restarted the run elsewhere, because it considers this node dead."""
        if not self.is_limited or time.monotonic() < self._fenced:
            return True
        self._fenced = time.monotonic() + FENCE_EVERY_S
        try:
            words = self._run.slurm_current.read_text().split()
        except OSError:
            return True
        return len(words) != 2 or ".".join(words) == this_attempt()
