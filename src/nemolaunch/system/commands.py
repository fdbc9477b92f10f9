"""Output of other programs, all started at once."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence


def answers(
    *commands: Sequence[str], timeout_s: float, environment: Mapping[str, str] | None = None
) -> list[str | None]:
    """Return the output of each command; None if it is not installed, fails, or exceeds the timeout.

    Args:
        environment: of the commands; this process's own if not given.
    """
    started = [_start(command, environment) for command in commands]
    end = time.monotonic() + timeout_s
    return [_answer(process, end) if process else None for process in started]


def _start(command: Sequence[str], environment: Mapping[str, str] | None) -> subprocess.Popen[str] | None:
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
            env=None if environment is None else dict(environment),
        )
    except (OSError, ValueError):
        return None


def _answer(process: subprocess.Popen[str], end: float) -> str | None:
    with process:
        try:
            out, _ = process.communicate(timeout=max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            return None
    return out if process.returncode == 0 else None
