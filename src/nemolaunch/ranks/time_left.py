"""How much time a job has left, how long a checkpoint takes, and what follows from the two."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from nemolaunch.run.folder import RunDir
from nemolaunch.system.atomic_files import write_text

FIRST_SAVE_GUESS_S = 60.0  # until one has been measured
MIN_BEFORE_S = 120.0
SAVE_MARGIN = 1.2  # a save may take this many times as long as the slowest so far
END_EVERY_S = 5.0
ANSWER_S = 5.0  # how long to wait for the batch script to query the queue
CONTINUE, SAVE_AND_EXIT, EXIT = 0, 1, 2


def decide(
    *,
    left_s: float | None,
    kill_wait_s: float,
    save_s: float | None,
    step_s: float,
    before_s: float | None,
    asked: bool,
) -> int:
    """Decide whether to continue, to save and exit, or to exit at once because a save could not finish in time.

    Args:
        left_s: seconds until the job ends; None if not known.
        kill_wait_s: seconds from its end until Slurm kills it; only relied on if `asked`.
        save_s: duration of the slowest save so far; None before the first.
        step_s: duration of the slowest step so far.
        before_s: how long before the end to exit; None: twice the duration of a save, at least two minutes.
        asked: whether a signal asks the job to exit now.
    """
    needed_s = SAVE_MARGIN * (save_s or 0.0)
    if asked:
        return EXIT if left_s is not None and left_s + kill_wait_s < needed_s else SAVE_AND_EXIT
    if left_s is None:
        return CONTINUE
    if before_s is None:
        before_s = max(2 * (save_s or FIRST_SAVE_GUESS_S), MIN_BEFORE_S)
    if left_s >= max(before_s, needed_s) + step_s:
        return CONTINUE
    return SAVE_AND_EXIT if left_s > needed_s else EXIT


class JobEnd:
    """The end of the job as recorded by the batch script: `END KILL_WAIT`, Unix time and seconds.

    Args:
        known: whether there is a batch script; without one, the job has no time limit.
    """

    def __init__(self, run: RunDir, known: bool = True) -> None:
        self._known = known
        self._path = run.slurm_end
        self._ask = run.slurm_ask
        self._read_at = -END_EVERY_S
        self._end: float | None = None
        self.kill_wait_s = 0.0

    def left_s(self) -> float | None:
        """Return the seconds until the end; None if not known."""
        if self._known and time.monotonic() - self._read_at >= END_EVERY_S:
            self._read()
        return None if self._end is None else self._end - time.time()

    def ask(self) -> None:
        """Have the batch script update the end: a signal may mean that it has moved, e.g. due to preemption."""
        if not self._known:
            return
        write_text(self._ask, "")
        deadline = time.monotonic() + ANSWER_S
        while self._ask.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        self._read()

    def _read(self) -> None:
        self._read_at = time.monotonic()
        try:
            words = self._path.read_text(encoding="utf-8").split()
        except OSError:
            return
        numbers = [float(word) for word in words if word.isdigit()]
        if numbers:
            self._end = numbers[0]
            self.kill_wait_s = numbers[1] if len(numbers) > 1 else 0.0


class SlowestSave:
    """The longest time that a checkpoint of this run took until it was complete, over all attempts."""

    def __init__(self, run: RunDir) -> None:
        self._path = run.slurm_slowest_save
        self.seconds: float | None = None
        with contextlib.suppress(OSError, ValueError):
            self.seconds = float(self._path.read_text(encoding="utf-8"))

    def begin(self, writes: bool) -> Callable[[], None]:
        """Start to time a save. Return the function to call when it is complete.

        Args:
            writes: whether this rank tells later starts.
        """
        start = time.monotonic()
        return lambda: self._took(time.monotonic() - start, writes)

    def _took(self, seconds: float, writes: bool) -> None:
        if seconds > (self.seconds or 0.0):
            self.seconds = seconds
            if writes:
                write_text(self._path, f"{seconds:.3f}\n")
