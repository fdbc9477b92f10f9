"""End a process that hangs, after it has dumped its stacks."""

from __future__ import annotations

import faulthandler
import signal

STACKS_BEFORE_END_S = 20
MIN_START_S = 3600  # for NeMo's import, loading a large checkpoint, Megatron's index of all samples


def watch(timeout_s: int) -> None:
    """Start the timer: after `timeout_s` seconds the stacks are dumped, and soon afterwards the process ends.

    A C thread dumps the stacks and a kernel alarm ends the process, so both work while Python is stuck in a
    collective. The delay between the two lets every rank dump its stacks. Calling this again resets the timer.
    """
    faulthandler.dump_traceback_later(timeout_s)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(timeout_s + STACKS_BEFORE_END_S)


def watch_start(timeout_s: int) -> None:
    """Start the timer for the first step, which may take at least an hour."""
    if timeout_s:
        watch(max(timeout_s, MIN_START_S))


def stop() -> None:
    """Stop the timer."""
    faulthandler.cancel_dump_traceback_later()
    signal.alarm(0)


def end_within(seconds: int) -> None:
    """Have the kernel end this process if it has not exited after that time."""
    faulthandler.cancel_dump_traceback_later()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)
