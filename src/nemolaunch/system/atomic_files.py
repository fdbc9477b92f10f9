"""Files and folders written atomically: readers see the old content or the new, never a part of it.

Content is written under a temporary name in the same folder, flushed to disk, and renamed. An error, a kill
or a power failure before that leaves the earlier file untouched.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from nemolaunch.system import renames

# In bytes: a name may have 255, and the temporary one adds 22 to what it keeps.
LONGEST_KEPT = 200
TEMPORARY = re.compile(r"\..*\.[0-9a-f]{16}\.tmp", re.DOTALL)
# Errors of file systems that cannot flush a folder, or not for this user
CANNOT_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM)


@contextmanager
def atomic_file(
    path: Path, mode: str = "wb", *, durable: bool = True, private: bool = False
) -> Iterator[IO[Any]]:
    """Yield a file that gets the name `path` when the block ends without an error.

    Its folder is made if needed; its permissions follow the umask.

    Args:
        mode: `wb`, or `w` for UTF-8 text.
        durable: wait until the content and its name are on the disk. Without it, a power failure may lose the
            file.
        private: nobody else may read it, whatever the umask.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        opener = private_opener if private else None
        encoding = None if "b" in mode else "utf-8"
        with open(temporary, mode.replace("w", "x"), encoding=encoding, opener=opener) as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if durable:
            sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a binary file atomically."""
    with atomic_file(path, durable=durable) as file:
        file.write(data)


def private_opener(path: str, flags: int) -> int:
    """Open a file that nobody else may read; for `open(…, opener=private_opener)`."""
    return os.open(path, flags, 0o600)


def write_text(path: Path, text: str, *, durable: bool = True, private: bool = False) -> None:
    """Write a text file atomically."""
    with atomic_file(path, "w", durable=durable, private=private) as file:
        file.write(text)


def write_json(path: Path, value: Any, *, durable: bool = True, private: bool = False) -> None:
    """Write a JSON file atomically."""
    _write_json(path, lambda ascii: json.dumps(value, indent=1, ensure_ascii=ascii), durable, private)


def write_long_json(path: Path, value: dict[str, Any], *, durable: bool = True) -> None:
    """Write an object that may name a million files: a line for each of its values, and for each item of a list.

    `json` indents in Python, which takes ten times as long. Of a list with more than 10,000 items a line has 100.
    """

    def lines(ascii: bool) -> str:
        dumps = json.JSONEncoder(ensure_ascii=ascii).encode
        made = []
        for key, inner in value.items():
            if isinstance(inner, list) and inner:
                step = 1 if len(inner) <= 10_000 else 100
                rows = (dumps(inner[start : start + step])[1:-1] for start in range(0, len(inner), step))
                shown = "[\n  " + ",\n  ".join(rows) + "\n ]"
            else:
                shown = dumps(inner)
            made.append(f" {dumps(key)}: {shown}")
        return "{\n" + ",\n".join(made) + "\n}"

    _write_json(path, lines, durable, False)


def _write_json(path: Path, encoded: Callable[[bool], str], durable: bool, private: bool) -> None:
    text = encoded(False) + "\n"
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name that is not UTF-8
        text = encoded(True) + "\n"
    write_text(path, text, durable=durable, private=private)


def append_text(path: Path, text: str) -> None:
    """Append to a log in one write and flush it to disk. Readers have to expect an incomplete last line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `path` when the block ends without an error.

    Where the file system cannot exchange two names, a kill between two renames leaves no folder of that name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, earlier = temporary_name(path), temporary_name(path)
    try:
        temporary.mkdir()
        yield temporary
        sync_tree(temporary)
        renames.put(temporary, path, earlier)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if path.exists():
            shutil.rmtree(earlier, ignore_errors=True)


def move(source: Path, target: Path) -> None:
    """Give a finished file or folder its final name, on the same file system, and flush the name to disk."""
    os.replace(source, target)
    sync_folder(target.parent)


def sync_tree(path: Path) -> None:
    """Flush a file, or everything in a folder, to disk."""
    if path.is_file():
        sync_file(path)
    for folder, _, names in os.walk(path):
        for name in names:
            sync_file(Path(folder, name))
        sync_folder(Path(folder))


def sync_file(path: Path) -> None:
    """Flush a file's content to disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk, if its file system can: renames then survive a power failure."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        if error.errno in CANNOT_FLUSH:
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in CANNOT_FLUSH:
            raise
    finally:
        os.close(descriptor)


def remove_temporaries(folder: Path) -> list[Path]:
    """Remove the temporary files that a kill has left in a folder nobody else writes to. Return them."""
    found = [path for path in folder.glob(".*.tmp") if TEMPORARY.fullmatch(path.name)]
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return found


def temporary_name(path: Path) -> Path:
    """Return a hidden name beside `path` that no other process or thread uses, on this machine or another."""
    kept = os.fsencode(path.name)[:LONGEST_KEPT].decode("utf-8", "ignore")
    return path.with_name(f".{kept}.{secrets.token_hex(8)}.tmp")
