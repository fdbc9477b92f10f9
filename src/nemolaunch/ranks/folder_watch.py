"""The first rank watches over the run folder while it trains: its lock, and that it is still where it was."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from nemolaunch.ranks.log import log
from nemolaunch.run.folder import RunDir
from nemolaunch.system.atomic_files import write_json
from nemolaunch.system.locks import TOUCH_EVERY_S, read_record
from nemolaunch.system.open_folder import OpenFolder, moved

LOOK_EVERY_S = 1.0
EXIT_CODE = 1


class FolderWatch:
    """Touches the lock of the run folder, and ends this process when the folder is not this run's any more.

    The command or batch script that took the lock may be suspended while the ranks go on. A folder that is renamed
    would be made again under its old name by the next checkpoint.
    """

    def __init__(
        self, run: RunDir, end: Callable[[], None] = lambda: os._exit(EXIT_CODE), confirm_s: float = 2.0
    ) -> None:
        self._run = run
        self._end = end
        self._folder = OpenFolder(run.root, confirm_s)
        self._holder = read_record(run.lock)
        self._touched = time.monotonic()

    def start(self) -> None:
        """Watch in a thread, until this process ends."""
        threading.Thread(target=self._watch, name="folder", daemon=True).start()

    def look(self) -> str | None:
        """Touch the lock if it is time. Return why the run must end, or None."""
        if self._folder.is_away():
            return moved(str(self._run.root), self._folder.path())
        holder = read_record(self._run.lock)
        if holder and self._holder and holder != self._holder:
            return f"another process has taken {self._run.root} over: {holder}"
        if time.monotonic() - self._touched >= TOUCH_EVERY_S:
            self._touched = time.monotonic()
            with suppress(OSError):
                os.utime(self._run.lock)
        return None

    def _watch(self) -> None:
        while (why := self.look()) is None:
            time.sleep(LOOK_EVERY_S)
        log.error(why)
        now = self._folder.path()
        if self._folder.is_away() and now is not None:  # to tell why, where the user looks for it
            record = {"rank": 0, "time": time.time(), "type": "RunFolderMoved", "message": why, "then": []}
            with suppress(OSError):
                write_json(RunDir(Path(now)).rank_error(0), record)
        self._end()
