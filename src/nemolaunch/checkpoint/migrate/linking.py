"""Put the files of a checkpoint into another folder without reading them, where the file system can."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

Advance = Callable[[int], None]
FICLONE = 0x40049409  # linux/fs.h: the new file shares the blocks of the other one
COPY_BYTES = 16 << 20
WORDS = {
    "link": "the same file (a hard link); no tensor was read",
    "reflink": "shares its blocks (a reflink); no tensor was read",
    "copy": "copied to another file system",
}
# Of file systems that cannot link, of another user's files, and of files with as many links as are possible
CANNOT_LINK = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)


def can_link(source: Path, folder: Path) -> bool:
    """Return whether `put` is likely to need no space: whether both are on one file system."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return os.stat(source).st_dev == os.stat(there).st_dev


def put(source: Path, target: Path, advance: Advance) -> str:
    """Make `target` the same file as `source`, or one with its blocks, or a copy; return `link`, `reflink` or `copy`.

    The bytes done are reported to `advance`.
    """
    real = Path(os.path.realpath(source))
    try:
        os.link(real, target)
    except OSError as error:
        if error.errno not in CANNOT_LINK:
            raise
    else:
        advance(os.path.getsize(real))
        return "link"
    with open(real, "rb") as old, open(target, "xb") as new:
        if _clone(new.fileno(), old.fileno()):
            advance(os.path.getsize(real))
            return "reflink"
        while block := old.read(COPY_BYTES):
            new.write(block)
            advance(len(block))
    return "copy"


def difference(source: Path, target: Path) -> str | None:
    """Return how two files differ; None if they are one file, or have the same bytes."""
    if os.path.samefile(source, target):
        return None
    sizes = os.path.getsize(source), os.path.getsize(target)
    if sizes[0] != sizes[1]:
        return f"has {sizes[1]:,} bytes, not {sizes[0]:,}"
    with open(source, "rb") as old, open(target, "rb") as new:
        place = 0
        while block := old.read(COPY_BYTES):
            if new.read(COPY_BYTES) != block:
                return f"differs in the bytes from {place:,} on"
            place += len(block)
    return None


def _clone(new: int, old: int) -> bool:
    import fcntl

    try:
        fcntl.ioctl(new, FICLONE, old)
    except OSError:
        return False
    return True
