"""A folder that is held open, so that one notices when it is renamed or removed."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path


class OpenFolder:
    """An open folder, which the kernel knows by the file, not by the name."""

    def __init__(self, folder: Path, confirm_s: float = 2.0) -> None:
        self._path = os.path.abspath(folder)
        self._file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._confirm_s = confirm_s
        self._away_since: float | None = None

    def is_away(self) -> bool:
        """Return whether its name has led elsewhere for a while: a network file system may lose it for a moment."""
        if self.path() == self._path:
            self._away_since = None
            return False
        self._away_since = self._away_since or time.monotonic()
        return time.monotonic() - self._away_since >= self._confirm_s

    def path(self) -> str | None:
        """Return where the folder is now; None if it is gone. Where that cannot be seen, it is where it was."""
        for path in (self._path, os.readlink(f"/proc/self/fd/{self._file}")):  # ends in ` (deleted)` if it is
            try:
                if os.path.samestat(os.stat(path), os.fstat(self._file)):
                    return path
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                return self._path
        return None


def remove_empty(folder: Path) -> None:
    """Remove a folder if it has nothing but empty folders in it."""
    for path, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            os.rmdir(path)


def moved(before: str, now: str | None) -> str:
    """Return a sentence about a run folder that has been moved while its run was writing to it."""
    if now is None:
        return f"the run folder {before} was removed or moved while the run was writing to it"
    return (
        f"the run folder {before} was moved to {now} while the run was writing to it; continue it there with "
        f"`nemolaunch resume {now}`"
    )
