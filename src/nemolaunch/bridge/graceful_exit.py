"""Graceful exit in Bridge's training loop: all ranks save together and exit."""

from __future__ import annotations

from collections.abc import Callable

from megatron.bridge.training.callbacks import Callback, CallbackContext

from nemolaunch.bridge.rank import device_of, is_first
from nemolaunch.bridge.saving import around_saves
from nemolaunch.planning import Plan
from nemolaunch.ranks.exit_vote import ExitVote
from nemolaunch.ranks.time_left import CONTINUE, EXIT

# Before 0.5, Bridge says nothing when an asynchronous save is complete: only the time that it blocks is known
TELLS_OF_SAVES = hasattr(Callback, "on_checkpoint_save")


class GracefulExit(Callback):
    """Ends training between two steps, with a checkpoint, if any rank has a reason to.

    The loop is made to end here as it does after its last step: it saves unless it just has, and ends its callbacks.
    Bridge's own exits leave them open, and raise `SystemExit` through a handler that aborts the process groups.
    """

    def __init__(self, plan: Plan, tell: Callable[..., None]) -> None:
        self._plan = plan
        self._vote = ExitVote(plan, tell)
        self._saves: list[Callable[[], None]] = []  # that are not complete yet, oldest first

    def on_train_start(self, context: CallbackContext) -> None:
        """Install the signal handlers, and measure saves from now on if there is a time limit."""
        self._vote.start()
        self._device = device_of(self._plan)
        if self._vote.is_limited:
            around_saves(self._save_begins, lambda step: None if TELLS_OF_SAVES else self._save_ends())

    def _save_begins(self) -> None:
        self._saves.append(self._vote.save.begin(writes=is_first()))

    def on_checkpoint_save(self, context: CallbackContext) -> None:
        """Note how long the oldest save took: it is complete."""
        self._save_ends()

    def _save_ends(self) -> None:
        if self._saves:
            self._saves.pop(0)()

    def on_train_step_end(self, context: CallbackContext) -> None:
        """Vote with all other ranks on whether to exit after this step."""
        step, config = context.state.train_state.step + 1, context.state.cfg
        decision = self._vote.after(step, first=is_first(), device=self._device)
        if decision == CONTINUE:
            return
        config.validation.eval_interval = None  # otherwise Bridge may validate before it stops
        config.train.train_iters = step
        if decision == EXIT:
            config.checkpoint.save = None
