"""When checkpoints are saved, and what must know of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from megatron.bridge.training import train
from megatron.bridge.training.callbacks import Callback, CallbackContext

EVERY_S = 15 * 60.0  # unless the job says after how many steps


def around_saves(before: Callable[[], None], after: Callable[[int], None]) -> None:
    """Have `before` called before each save of this process, and `after` with the step when it returns."""
    save = train.save_checkpoint_and_time

    def watched(state: Any, *args: Any, **kwargs: Any) -> None:
        before()
        save(state, *args, **kwargs)
        after(state.train_state.step)

    train.save_checkpoint_and_time = watched


class TimedSaves(Callback):
    """Saves every 15 minutes: Bridge only counts steps.

    The first rank looks at its clock; one broadcast of four bytes per step tells the others.
    """

    def __init__(self, every_s: float = EVERY_S) -> None:
        self._every_s = every_s
        self._last = time.monotonic()

    def on_train_start(self, context: CallbackContext) -> None:
        """Start the clock."""
        self._last = time.monotonic()

    def on_train_step_start(self, context: CallbackContext) -> None:
        """Take back the request of the previous step."""
        context.state.cfg.checkpoint.save_interval = None

    def on_train_step_end(self, context: CallbackContext) -> None:
        """Request a save after this step, by an interval of as many steps as are done."""
        is_due = time.monotonic() - self._last >= self._every_s
        shared = torch.tensor(int(is_due), dtype=torch.int32, device=torch.cuda.current_device())
        torch.distributed.broadcast(shared, 0)
        if shared.item():
            self._last = time.monotonic()
            context.state.cfg.checkpoint.save_interval = context.state.train_state.step + 1
