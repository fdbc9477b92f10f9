"""A folder in an object store: uploaded so that it can be resumed, and complete once its marker is there.

While files arrive, a list of them with their sizes and SHA-256 grows beside them; a file that is in it, and in the
store with the same size and version, is not sent again. The marker has the same list, and is written last: a folder
without it is not complete, and nothing takes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nemolaunch.errors import NemolaunchError
from nemolaunch.system import remote
from nemolaunch.system.atomic_files import atomic_folder

LIST, MARKER = "upload.json", "complete.json"
TRIES = 4
FIRST_PAUSE_S = 1.0
READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Sent:
    """What an upload did: bytes and files that were sent, and files that were there already."""

    bytes: int = 0
    files: int = 0
    skipped: int = 0


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file. Raises OSError."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def is_complete(url: str) -> bool:
    """Return whether a folder has been uploaded completely. Raises OSError."""
    return _read_list(remote.join(url, MARKER)) is not None


def upload_folder(folder: Path, url: str, report: Callable[[int], None] = lambda _: None) -> Sent:
    """Upload all files below a folder, and then its marker. What is there already is not sent again.

    Args:
        report: takes the bytes of the folder that are there so far.

    Raises OSError: the store cannot be reached or refuses, or a file has vanished; what has arrived is kept.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    local: dict[str, dict[str, Any]] = {
        str(p.relative_to(folder)): {"bytes": p.stat().st_size, "sha256": sha256_of(p)} for p in files
    }
    known = _read_list(remote.join(url, LIST)) or {}
    marked = _read_list(remote.join(url, MARKER))
    if marked is not None and {n: {**e, "version": None} for n, e in marked.items()} != {
        n: {**e, "version": None} for n, e in local.items()
    }:
        remote.remove(
            remote.join(url, MARKER)
        )  # another checkpoint of that name: it is not complete meanwhile
        marked = None
    listed: dict[str, Any] = {}
    sent, done = Sent(), 0
    for name, entry in local.items():
        target, before = remote.join(url, name), known.get(name) or {}
        if {**entry, "version": before.get("version")} == before and _is_there(target, before):
            sent = Sent(sent.bytes, sent.files, sent.skipped + 1)
            listed[name] = before
        else:
            path = folder / name
            retried(partial(_put, path, target, report, done))
            sent = Sent(sent.bytes + entry["bytes"], sent.files + 1, sent.skipped)
            listed[name] = {**entry, "version": remote.stat(target).version}
            _write_list(remote.join(url, LIST), {**known, **listed})
        done += entry["bytes"]
        report(done)
    if listed != marked:
        _write_list(remote.join(url, MARKER), listed)
    return sent


def _put(path: Path, url: str, report: Callable[[int], None], before: int) -> None:
    remote.put(str(path), url, lambda part: report(before + part))


def retried(act: Callable[[], None]) -> None:
    """Do something that may fail for a while, several times, ever more slowly. Raises the last OSError."""
    for number in range(TRIES):
        try:
            return act()
        except (FileNotFoundError, PermissionError):
            raise
        except OSError:
            if number == TRIES - 1:
                raise
            time.sleep(FIRST_PAUSE_S * 2**number)


def _is_there(url: str, entry: dict[str, Any]) -> bool:
    try:
        found = remote.stat(url)
    except FileNotFoundError:
        return False
    return (found.size, found.version) == (entry["bytes"], entry["version"])


def _read_list(url: str) -> dict[str, Any] | None:
    try:
        found = json.loads(remote.read(url))
    except (FileNotFoundError, ValueError):
        return None
    return found["files"] if isinstance(found, dict) and isinstance(found.get("files"), dict) else None


def _write_list(url: str, files: dict[str, Any]) -> None:
    retried(lambda: remote.write(url, json.dumps({"files": files}, indent=1).encode()))


def download_folder(url: str, target: Path) -> None:
    """Download a complete folder, and compare every file with the marker. The target appears complete or not at all.

    Raises:
        NemolaunchError: it is not complete, or a file differs from its marker.
        OSError: the store cannot be read, or the target cannot be written.
    """
    files = _read_list(remote.join(url, MARKER))
    if files is None:
        raise NemolaunchError(f"{url} is not complete: it has no {MARKER}")
    with atomic_folder(target) as folder:
        for name, entry in files.items():
            path = folder / name
            if os.path.isabs(name) or ".." in Path(name).parts:
                raise NemolaunchError(f"{url}/{MARKER} names a file outside its folder: {name!r}")
            path.parent.mkdir(parents=True, exist_ok=True)
            retried(lambda name=name, path=path: remote.get(remote.join(url, name), str(path)))  # type: ignore[misc]
            if path.stat().st_size != entry["bytes"] or sha256_of(path) != entry["sha256"]:
                raise NemolaunchError(
                    f"{url}/{name} differs from what was uploaded: its SHA-256 is another one"
                )


def upload_files(files: Iterable[tuple[Path, str]]) -> None:
    """Upload files to URLs, one after another. Raises OSError."""
    for path, url in files:
        retried(lambda path=path, url=url: remote.put(str(path), url))  # type: ignore[misc]
