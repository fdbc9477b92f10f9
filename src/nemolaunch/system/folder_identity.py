"""The identity of a folder, which travels in it: a moved folder is the same one, a copy is another.

A file in the folder holds an id, with the inode numbers of the folder and of the file itself. A rename keeps both, a
copy changes both. A folder moved to another file system is therefore a copy, too: which of several copies is the
original one cannot be seen.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from nemolaunch.system.atomic_files import sync_folder, temporary_name
from nemolaunch.system.process_identity import this_boot

NAME = "identity.json"
READ_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class FolderIdentity:
    """What the file in a folder says.

    Attributes:
        id: 16 hexadecimal digits.
        path: where the folder was when it was last used.
        folder_inode, file_inode: of the folder and of the file.
        created: when the folder got the id, in Unix seconds; 0 for one that existed before.
        boot, device: the machine's boot, and the number by which it knew the file system.
    """

    id: str
    path: str
    folder_inode: int
    file_inode: int
    created: float
    boot: str
    device: int


def read(folder: Path) -> FolderIdentity | None:
    """Return what a folder says of itself, or of the folder it was copied from; None if it has no identity."""
    try:
        with open(folder / NAME, "rb") as file:
            found = FolderIdentity(**json.loads(file.read(READ_BYTES)))
    except (OSError, ValueError, TypeError):
        return None
    return found if isinstance(found.id, str) and found.id.isalnum() and found.id.isascii() else None


def is_copy(folder: Path) -> bool:
    """Return whether a folder's identity is that of the folder it was copied from."""
    found = read(folder)
    return found is not None and not _is_own(folder, found)


def current(folder: Path) -> FolderIdentity | None:
    """Return a folder's own identity; None if it has none yet."""
    found = read(folder)
    return found if found is not None and _is_own(folder, found) else None


def _is_own(folder: Path, found: FolderIdentity) -> bool:
    try:
        here, file = os.stat(folder), os.stat(folder / NAME)
    except OSError:
        return False
    other_device = found.boot == this_boot() and found.boot != "" and found.device != here.st_dev
    return (here.st_ino, file.st_ino) == (found.folder_inode, found.file_inode) and not other_device


def claim(folder: Path, first_id: str | None = None) -> FolderIdentity:
    """Return a folder's identity, with its present path; a folder without one, or a copy, gets a new one.

    Args:
        first_id: the id for a folder that has never had one.
    """
    before = current(folder)
    path = os.path.abspath(folder)
    if before is not None and before.path == path:
        return before
    new_id = before.id if before else (None if is_copy(folder) else first_id) or secrets.token_hex(8)
    temporary = temporary_name(folder / NAME)
    try:
        with open(temporary, "x", encoding="utf-8") as file:
            here, own = os.stat(folder), os.fstat(file.fileno())
            made = FolderIdentity(
                id=new_id,
                path=path,
                folder_inode=here.st_ino,
                file_inode=own.st_ino,
                created=before.created if before else 0.0 if new_id == first_id else time.time(),
                boot=this_boot(),
                device=here.st_dev,
            )
            json.dump(asdict(made), file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, folder / NAME)
        sync_folder(folder)
    finally:
        temporary.unlink(missing_ok=True)
    return made
