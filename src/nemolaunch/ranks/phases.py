"""What the first rank does before the first step, which takes longest: said in its log and shown with the run."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress

from nemolaunch.ranks.log import log
from nemolaunch.run.folder import RunDir
from nemolaunch.system.atomic_files import append_text

IMPORTED = "NEMOLAUNCH_IMPORTED"  # set where the process that ranks are forked from has said that it imports


def begin(run: RunDir, what: str) -> None:
    """Say that another phase begins. Where that cannot be written the training continues."""
    log.info(what)
    if int(os.environ.get("RANK") or 0) == 0:
        row = {"event": "phase", "step": 0, "time": time.time(), "text": what}
        with suppress(OSError):
            append_text(run.phases, json.dumps(row) + "\n")
