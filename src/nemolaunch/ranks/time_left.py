"""How much of a job's time is left, how long a checkpoint takes, and what follows from the two."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from nemolaunch.run.folder import RunDir
from nemolaunch.system.atomic_files import write_text

FIRST_SAVE_GUESS_S = 60.0  # until one has been measured
LEAST_BEFORE_S = 120.0
SAVE_MARGIN = 1.2  # how much longer than the slowest so far a save is given
END_EVERY_S = 5.0
ANSWER_S = 5.0  # how long to wait for the batch script to look at the queue
STAY, SAVE_AND_LEAVE, LEAVE = 0, 1, 2


def decide(
    *,
    left_s: float | None,
    kill_wait_s: float,
    save_s: float | None,
    step_s: float,
    before_s: float | None,
    asked: bool,
) -> int:
    """Whether to go on, to save and leave, or to leave without a save that could not end in time.

    Args:
        left_s: seconds to the job's end; None where that is not known.
        kill_wait_s: seconds from its end to the moment Slurm kills it. Counted on only when `asked`.
        save_s: the slowest save so far; None before the first.
        step_s: the slowest step so far.
        before_s: how long before the end to leave; None: twice a save, at least two minutes.
        asked: whether a signal asks the job to leave now.
    """
    needed_s = SAVE_MARGIN * (save_s or 0.0)
    if asked:
        return LEAVE if left_s is not None and left_s + kill_wait_s < needed_s else SAVE_AND_LEAVE
    if left_s is None:
        return STAY
    if before_s is None:
        before_s = max(2 * (save_s or FIRST_SAVE_GUESS_S), LEAST_BEFORE_S)
    if left_s >= max(before_s, needed_s) + step_s:
        return STAY
    return SAVE_AND_LEAVE if left_s > needed_s else LEAVE


class JobEnd:
    """When the job ends, as the batch script writes it down: `END KILL_WAIT`, Unix time and seconds."""

    def __init__(self, run: RunDir) -> None:
        self._path = run.slurm_end
        self._ask = run.slurm_ask
        self._read_at = -END_EVERY_S
        self._end: float | None = None
        self.kill_wait_s = 0.0

    def left_s(self) -> float | None:
        """Seconds to the end; None where nobody knows."""
        if time.monotonic() - self._read_at >= END_EVERY_S:
            self._read()
        return None if self._end is None else self._end - time.time()

    def ask(self) -> None:
        """Have the batch script look anew: whoever sends a signal may have moved the end, as preemption does."""
        write_text(self._ask, "")
        give_up = time.monotonic() + ANSWER_S
        while self._ask.exists() and time.monotonic() < give_up:
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
    """The longest a checkpoint of this run took until it was wholly written, over all starts."""

    def __init__(self, run: RunDir) -> None:
        self._path = run.slurm_slowest_save
        self.seconds: float | None = None
        with contextlib.suppress(OSError, ValueError):
            self.seconds = float(self._path.read_text(encoding="utf-8"))

    def measure(self, checkpoint: Any, writes: bool) -> None:
        """Time all saves of NeMo's checkpoint callback, those that go on in the background too."""
        made: Callable[..., Callable[[], None]] = checkpoint._get_finalize_save_checkpoint_callback

        def timed(*args: Any, **kwargs: Any) -> Callable[[], None]:
            start, finalize = time.monotonic(), made(*args, **kwargs)

            def finalized() -> None:
                finalize()
                self._took(time.monotonic() - start, writes)

            return finalized

        checkpoint._get_finalize_save_checkpoint_callback = timed

    def _took(self, seconds: float, writes: bool) -> None:
        if seconds > (self.seconds or 0.0):
            self.seconds = seconds
            if writes:
                write_text(self._path, f"{seconds:.3f}\n")
