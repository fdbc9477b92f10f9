"""Ending a command that writes, when it is asked to from outside."""

from __future__ import annotations

import signal
from typing import NoReturn


def exit_on_signals() -> None:
    """Exit when a plain `kill` asks to, or a terminal closes, so that incomplete output is removed as after Ctrl-C.

    A signal that is ignored stays ignored: `nohup` does that.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _exit)


def _exit(number: int, *_: object) -> NoReturn:
    raise SystemExit(128 + number)
