"""A folder that is held open, so that one notices when it is renamed or removed."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


class OpenFolder:
    """An open folder, which the kernel knows by the file, not by the name."""

    def __init__(self, folder: Path) -> None:
        self._path = os.path.abspath(folder)
        self._file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def path(self) -> str | None:
        """Return where the folder is now: the path it was opened by if that still leads to it; None if it is gone."""
        for path in (self._path, self._now()):
            with suppress(OSError):
                if os.path.samestat(os.stat(path), os.fstat(self._file)):
                    return path
        return None

    def _now(self) -> str:
        return os.readlink(f"/proc/self/fd/{self._file}")  # ends in ` (deleted)` if it is


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
