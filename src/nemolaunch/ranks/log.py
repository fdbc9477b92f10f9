"""What nemolaunch itself writes into a rank's log, among all that the framework writes there."""

from __future__ import annotations

import logging
import sys

log = logging.getLogger("nemolaunch.ranks")


class _Stdout(logging.Handler):
    """Writes to whatever stdout is at that moment: the log file, once a rank has opened it."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stdout.write(f"nemolaunch: {record.getMessage()}\n")
        sys.stdout.flush()


log.addHandler(_Stdout())
log.setLevel(logging.INFO)
log.propagate = False  # frameworks put handlers of their own on the root logger
