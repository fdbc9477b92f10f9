"""Ends a process in which nothing moves any more, after it has written all its stacks."""

from __future__ import annotations

import faulthandler
import signal

STACKS_BEFORE_END_S = 20
LEAST_FOR_START_S = 3600  # NeMo's import, a large checkpoint, Megatron's index of all samples


def watch(timeout_s: int) -> None:
    """Begin to wait: after `timeout_s` seconds the stacks are written, soon after the process ends.

    The stacks come from a C thread and the end from an alarm of the kernel, so that both work while Python
    itself is stuck inside a collective. Ranks end a little after they wrote, so that each gets to write.
    Calling it again begins anew.
    """
    faulthandler.dump_traceback_later(timeout_s)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(timeout_s + STACKS_BEFORE_END_S)


def watch_start(timeout_s: int) -> None:
    """Begin to wait for the first step, which is given at least an hour."""
    if timeout_s:
        watch(max(timeout_s, LEAST_FOR_START_S))


def stop() -> None:
    """Wait no longer."""
    faulthandler.cancel_dump_traceback_later()
    signal.alarm(0)


def end_within(seconds: int) -> None:
    """Have the kernel end this process if it does not end by itself."""
    faulthandler.cancel_dump_traceback_later()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)
