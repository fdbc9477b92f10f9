"""Detect that a run makes no progress, and eventually end it, whichever framework trains it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from nemolaunch.ranks import hang

QUIET_FACTOR = 10.0  # times the longest step, validation batch or save so far
QUIET_MIN_S = 60.0
QUIET_SAVE_S = 600.0  # for a large checkpoint on a busy file system
POLL_S = 5.0


class ProgressWatch:
    """Reports when nothing has finished for a long time, and ends the process at the limit.

    First, a thread of the first rank reports `no progress`. At the limit, all ranks dump their stacks and exit.
    Each step and validation batch resets the timer; a save may take as long as a step.

    Args:
        timeout_s: the limit in seconds; 0 for no limit.
        tell: called with kind, step and `text`.

    Attributes:
        saving: whether a checkpoint is being saved.
    """

    def __init__(self, timeout_s: int, tell: Callable[..., None]) -> None:
        self._timeout_s = timeout_s
        self._tell = tell
        self._step = 0
        self._longest_s = 0.0
        self._last = 0.0
        self.saving = False
        self._over = threading.Event()

    def start(self, *, first: bool) -> None:
        """Start the timer, and on the first rank the thread that reports a lack of progress."""
        self._last = time.monotonic()
        self._rearm()
        if first:
            threading.Thread(target=self._watch, name="no-progress", daemon=True).start()

    def progress(self, step: int) -> None:
        """Reset the timer: something has finished."""
        now = time.monotonic()
        self._longest_s = max(self._longest_s, now - self._last)
        self._last, self._step = now, step
        self._rearm()

    def stop(self) -> None:
        """Stop the timer and the thread."""
        self._over.set()
        hang.stop()

    def _rearm(self) -> None:
        if self._timeout_s:
            hang.watch(self._timeout_s)

    def _watch(self) -> None:
        told_of = -1.0
        while not self._over.wait(POLL_S):
            last, quiet_s = self._last, time.monotonic() - self._last
            min_s = QUIET_SAVE_S if self.saving else QUIET_MIN_S
            if last != told_of and quiet_s > max(min_s, QUIET_FACTOR * self._longest_s):
                told_of = last
                self._tell("no progress", self._step, text=self._sentence(quiet_s))

    def _sentence(self, quiet_s: float) -> str:
        text = f"nothing has finished for {quiet_s:.0f} s; until now, {self._longest_s:.1f} s was the longest"
        if self._timeout_s:
            text += f"; --hang-timeout {self._timeout_s} will end the job"
        return text
