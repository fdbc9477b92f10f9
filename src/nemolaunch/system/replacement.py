"""Write a file or folder beside its final name, then put it there in one step.

Everything unfinished lies in a hidden folder beside the final name, with a lock. An exception removes it. After a kill
the next command for the same name removes it, having given the earlier file or folder its name back if the kill came
between two renames.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from nemolaunch.system import renames
from nemolaunch.system.atomic_files import sync_folder, write_json
from nemolaunch.system.locks import Held, Lock

NEW, OLD, LOCK = "new", "old", "lock"
JOURNAL = "replacing.json"
# After which an unfinished folder without a lock, of an earlier version, belongs to nobody
FORGOTTEN_S = 86400.0


@contextmanager
def replacing(final: Path, ready: Callable[[Path], None]) -> Iterator[Path]:
    """Yield a path to write a file or folder to, which replaces `final` if the block ends without an error.

    Args:
        ready: called with the written path before it gets its name; may raise.

    Raises:
        OSError: it cannot be written.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=_prefix(final), dir=final.parent))
    lock = Lock(work / LOCK)
    try:
        lock.take()
        yield work / NEW
        ready(work / NEW)
        renames.put(work / NEW, final, work / OLD)
        sync_folder(final.parent)
    finally:
        _remove(work, final)
        lock.release()


def _prefix(final: Path) -> str:
    return f".{final.name}.partial-"


def tidy(final: Path) -> list[Path]:
    """Remove what interrupted commands left beside a name, and restore the name if need be. Return what was removed."""
    try:
        found = [Path(entry) for entry in os.scandir(final.parent) if entry.name.startswith(_prefix(final))]
    except OSError:
        return []
    return [work for work in sorted(found) if _is_folder(work) and _tidy_one(work, final)]


def _is_folder(work: Path) -> bool:
    return work.is_dir() and not work.is_symlink()


def _tidy_one(work: Path, final: Path) -> bool:
    """Remove an unfinished folder if it belongs to no process any more. Return whether it is gone."""
    try:
        names = {path.name for path in work.iterdir()}
        if not names:
            work.rmdir()  # a process that has just made it makes it again, with its lock
            return True
        if LOCK not in names and not (names <= {NEW, OLD} and _is_forgotten(work)):
            return False
        lock = Lock(work / LOCK)
        lock.take()
    except (Held, OSError):
        return False
    try:
        return _remove(work, final)
    finally:
        lock.release()


def _is_forgotten(work: Path) -> bool:
    times = [os.lstat(path).st_mtime for path in (work, *work.iterdir())]
    return time.time() - max(times) > FORGOTTEN_S


def _remove(work: Path, final: Path) -> bool:
    """Remove an unfinished folder, its lock last, unless it holds the only copy of what stood under the name."""
    try:
        renames.restore(work / OLD, final)
        for path in (work / NEW, work / OLD, work / LOCK):
            if _is_folder(path):
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        work.rmdir()
    except OSError:
        return False
    return True


def put_files(files: Sequence[tuple[Path, Path]], folder: Path) -> None:
    """Give several finished files that belong together their final names: all of them, or none.

    The earlier ones are first set aside, last to first, and the new ones put there, first to last: the last should be
    the one that readers open first. A record makes the next command complete what a kill interrupts.

    Args:
        files: (new, final), where `new` is in `folder`, and `final` beside it.
        folder: of the unfinished files.

    Raises:
        OSError: one cannot be renamed; the earlier files then stand under their names.
    """
    names = [(new.name, final.name) for new, final in files]
    write_json(folder / JOURNAL, names)
    try:
        _put(names, folder)
    except BaseException:
        _undo(names, folder)
        (folder / JOURNAL).unlink()
        raise
    _end(names, folder)


def complete_files(folder: Path) -> bool:
    """Complete the replacement of files that a kill interrupted, if there is one in this folder. Return whether."""
    try:
        names = json.loads((folder / JOURNAL).read_text(encoding="utf-8"))
        names = [(os.path.basename(new), os.path.basename(final)) for new, final in names]
    except (OSError, ValueError, TypeError):
        return False
    _put(names, folder)
    _end(names, folder)
    return True


def discard(folder: Path) -> None:
    """Remove a folder of unfinished files, unless a replacement from it has still to be completed."""
    if not (folder / JOURNAL).exists():
        shutil.rmtree(folder, ignore_errors=True)


def _put(names: Sequence[tuple[str, str]], folder: Path) -> None:
    for new, final in reversed(names):
        if os.path.lexists(folder / new) and os.path.lexists(folder.parent / final):
            os.rename(folder.parent / final, folder / _aside(final))
    for new, final in names:
        if os.path.lexists(folder / new):
            os.rename(folder / new, folder.parent / final)
    sync_folder(folder.parent)


def _undo(names: Sequence[tuple[str, str]], folder: Path) -> None:
    for new, final in reversed(names):
        aside = folder / _aside(final)
        if not os.path.lexists(folder / new):
            os.rename(folder.parent / final, folder / new)
        if os.path.lexists(aside):
            os.rename(aside, folder.parent / final)


def _end(names: Sequence[tuple[str, str]], folder: Path) -> None:
    (folder / JOURNAL).unlink()
    for _, final in names:
        (folder / _aside(final)).unlink(missing_ok=True)


def _aside(final: str) -> str:
    return f"old-{final}"
