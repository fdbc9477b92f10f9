"""Checkpoints are uploaded by a process beside the first rank, which outlives an error of training.

The first rank starts it, whatever the launcher, container or framework, so it has the same files and variables.
It looks for complete checkpoints until its standard input ends, which happens when the rank ends in any way, then
uploads what is left and exits. What a kill prevents is done by the next attempt; without one, the module can be run by
hand, with its input at its end.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from nemolaunch.planning import Plan
from nemolaunch.ranks import hang
from nemolaunch.ranks.log import log
from nemolaunch.run.folder import RunDir
from nemolaunch.run.uploads import Uploader, state_of
from nemolaunch.system import remote

LOOK_EVERY_S = 2.0
AFTER_FAILURE_S = 30.0
LAST_TRIES = 3
AFTER_ERROR_S = 45.0
SAY_EVERY_S = 30.0


def url_of(plan: Plan) -> str | None:
    """Return where a run is uploaded to: a folder with the name of the experiment below `--upload`."""
    given = plan.job.checkpoint.upload
    return remote.join(given, plan.job.launch.experiment) if given else None


class Beside:
    """The process beside the first rank; nothing without `--upload`."""

    def __init__(self, plan: Plan) -> None:
        url = url_of(plan)
        self.run = plan.run
        self.process = url and subprocess.Popen(
            [sys.executable, "-m", "nemolaunch.ranks.uploading", str(plan.run.root), url],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def finish(self, *, failed: bool, say: Callable[[str], None]) -> None:
        """Wait until all is uploaded, or after an error of training for a moment, and say how far it is."""
        if not isinstance(self.process, subprocess.Popen):
            return
        assert self.process.stdin is not None
        self.process.stdin.close()
        if not failed:
            hang.stop()
        end = time.monotonic() + AFTER_ERROR_S
        while not failed or time.monotonic() < end:
            try:
                self.process.wait(min(SAY_EVERY_S, AFTER_ERROR_S))
                return
            except subprocess.TimeoutExpired:
                say(str(state_of(self.run)))


def main(run: RunDir, url: str) -> int:
    """Upload until standard input ends, and what is left then. Return 1 if that fails."""
    uploader = Uploader(run, url, log.info)
    os.nice(10)  # training comes first
    seen: list[Path] = []
    pause = LOOK_EVERY_S
    while not select.select([sys.stdin], [], [], pause)[0]:
        pause = LOOK_EVERY_S
        if (now := run.complete_checkpoints()) != seen:
            if uploader.advance():
                seen = now
            else:
                pause = AFTER_FAILURE_S
    for number in range(LAST_TRIES):
        if uploader.advance():
            return 0
        time.sleep(LOOK_EVERY_S * 2**number)
    return 1


if __name__ == "__main__":
    sys.exit(main(RunDir(Path(sys.argv[1])), sys.argv[2]))
