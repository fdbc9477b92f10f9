"""Checkpoints are uploaded by a process beside the first rank, which outlives an error of training.

The first rank starts it, whatever the launcher, container or framework, so it has the same files and variables.
It looks for complete checkpoints until the rank says or is seen to be over, then uploads what is left and exits. The
end of its standard input alone would not tell: processes that the rank has forked, such as Bridge's writer of
checkpoints, keep its other side open. What a kill prevents is done by the next attempt, or by `nemolaunch upload`.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from nemolaunch.planning import Plan
from nemolaunch.ranks import hang
from nemolaunch.ranks.log import log
from nemolaunch.ranks.news import news_of
from nemolaunch.run.folder import RunDir
from nemolaunch.run.metrics import UPLOAD, last_step
from nemolaunch.run.uploads import Uploader, state_of, url_below
from nemolaunch.system import webhook
from nemolaunch.system.atomic_files import append_text
from nemolaunch.system.locks import Held, Lock
from nemolaunch.system.secret_values import masked

LOOK_EVERY_S = 2.0
AFTER_FAILURE_S = 30.0
LAST_TRIES = 3
AFTER_ERROR_S = 45.0
SAY_EVERY_S = 30.0


class Beside:
    """The process beside the first rank; nothing without `--upload`."""

    def __init__(self, plan: Plan) -> None:
        given = plan.job.checkpoint.upload
        url = given and url_below(given, plan.job.launch.experiment)
        self.run = plan.run
        self.process = url and subprocess.Popen(
            [sys.executable, "-m", __name__, str(plan.run.root), url, str(os.getpid())],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def finish(self, *, failed: bool, say: Callable[[str], None]) -> None:
        """Wait until all is uploaded, or after an error of training for a moment, and say how far it is."""
        if not isinstance(self.process, subprocess.Popen):
            return
        assert self.process.stdin is not None
        with suppress(OSError):  # it has ended
            self.process.stdin.write(b"over\n")
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


class Events:
    """Records in the metrics, and tells `--notify`, when uploads begin to fail, and when they succeed again."""

    def __init__(self, run: RunDir) -> None:
        self.run, self.failing = run, False
        self.news = news_of(Plan.of_run(run), log.info)

    def note(self, uploader: Uploader) -> None:
        """Take note of an attempt's outcome."""
        error = uploader.state.error
        failing = error is not None
        if failing != self.failing:
            self.failing = failing
            text = masked(f"to {uploader.url} " + (f"failed: {error}" if failing else "works again"))
            self.news.tell(UPLOAD, text)
            self._record(text)

    def _record(self, text: str) -> None:
        """Append to the file of the first rank: each of the two writes whole lines, with one call."""
        step = last_step(self.run.metrics)
        if step is not None:
            row = {"event": UPLOAD, "step": step, "time": time.time(), "text": text}
            append_text(self.run.metrics, json.dumps(row) + "\n")


def main(run: RunDir, url: str, parent: int) -> int:
    """Upload until the process that started this one is over, and what is left then. Return 1 if that fails.

    Args:
        parent: id of that process.
    """
    os.nice(10)  # training comes first
    lock = Lock(run.upload_lock)
    while not _taken(lock):  # the process of an earlier attempt uploads what that one has left
        time.sleep(LOOK_EVERY_S)
    try:
        return _upload(Uploader(run, url, log.info), Events(run), parent)
    finally:
        lock.release()
        webhook.flush()


def _taken(lock: Lock) -> bool:
    try:
        lock.take()
    except Held:
        return False
    return True


def _is_over(parent: int, wait_s: float) -> bool:
    """Wait, but not longer than until the parent says that it is over, or is gone. Return whether it is."""
    end = time.monotonic() + wait_s
    while os.getppid() == parent:
        left_s = end - time.monotonic()
        if select.select([sys.stdin], [], [], max(0.0, min(LOOK_EVERY_S, left_s)))[0]:
            return True
        if left_s <= LOOK_EVERY_S:
            return False
    return True


def _upload(uploader: Uploader, events: Events, parent: int) -> int:
    run = uploader.run
    seen: list[Path] = []
    pause = LOOK_EVERY_S
    while not _is_over(parent, pause):
        pause = LOOK_EVERY_S
        if (now := run.complete_checkpoints()) != seen:
            if uploader.advance():
                seen = now
            else:
                pause = AFTER_FAILURE_S
            events.note(uploader)
    for number in range(LAST_TRIES):
        done = uploader.advance()
        events.note(uploader)
        if done:
            return 0
        time.sleep(LOOK_EVERY_S * 2**number)
    return 1


if __name__ == "__main__":
    sys.exit(main(RunDir(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])))
