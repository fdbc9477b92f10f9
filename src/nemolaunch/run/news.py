"""What `--notify` sends: the end of a run, its failures, what guards saw, and that it was restarted."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress

from nemolaunch.run.folder import RunDir
from nemolaunch.system import webhook
from nemolaunch.system.secret_values import masked

LOCAL_ATTEMPT = "local"  # the name of an attempt that is not on Slurm
LONGEST_TEXT = 1000  # characters
PAUSE_S = 60.0  # between two messages of one kind, as a guard may warn at every step


class News:
    """The messages about one run. Each process that may see the end of a run has its own.

    Args:
        wanted: whether the user asked for messages.
        name: of the run, with which each message begins.
        say: called with the reason if a message cannot be sent.
    """

    def __init__(self, run: RunDir, name: str, say: Callable[[str], None], *, wanted: bool) -> None:
        self._run, self._name, self._say, self._wanted = run, name, say, wanted
        self._last: dict[str, float] = {}
        self._complained = False

    def tell(self, kind: str, text: str) -> None:
        """Send a message, unless one of this kind was sent a moment ago. Never waits, never raises."""
        now = time.monotonic()
        if not self._wanted or now - self._last.get(kind, -PAUSE_S) < PAUSE_S:
            return
        self._last[kind] = now
        said = masked(f"{self._name}: {text}")
        webhook.send(said if len(said) <= LONGEST_TEXT else said[: LONGEST_TEXT - 1] + "…", self._complain)

    def tell_failure(self, attempt: str, text: str) -> None:
        """Send why an attempt failed and wait until it is sent, if no other process of the run has done so."""
        if self._wanted and self._is_first(attempt):
            self.tell("failed", f"failed: {text}")
            webhook.flush()

    def flush(self) -> None:
        """Wait some seconds until all messages are sent."""
        if self._wanted:
            webhook.flush()

    def _is_first(self, attempt: str) -> bool:
        """Return whether this process is the first to report the failure of an attempt; all ranks fail at once."""
        try:
            self._run.failure_told(attempt).parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self._run.failure_told(attempt), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        except OSError:
            pass  # a full disk is worth a message from every rank
        return True

    def _complain(self, reason: str) -> None:
        if not self._complained:
            self._complained = True
            with suppress(Exception):
                self._say(f"--notify: {reason}")
