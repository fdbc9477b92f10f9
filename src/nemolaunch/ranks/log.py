"""The logger for nemolaunch's own messages in a rank's log, next to the framework's output."""

from __future__ import annotations

import logging
import sys

log = logging.getLogger("nemolaunch.ranks")


class _Stdout(logging.Handler):
    """A handler that writes to the current stdout: the log file, once a rank has opened it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        sys.stdout.write(f"nemolaunch: {record.getMessage()}\n")
        sys.stdout.flush()


log.addHandler(_Stdout())
log.setLevel(logging.INFO)
log.propagate = False  # frameworks add their own handlers to the root logger
