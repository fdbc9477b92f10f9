"""A Wikipedia as JSON Lines: its dump is downloaded, verified, and converted to plain text.

The text is under CC BY-SA, so each article keeps its title and address.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

from nemolaunch.download.convert import DumpProgress, convert
from nemolaunch.download.dumps import SERVER, Dump
from nemolaunch.download.multistream import split
from nemolaunch.download.transfer import Client
from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.system.atomic_files import move, write_text


@dataclass(frozen=True, kw_only=True)
class WikiRequest:
    """Which dump to convert, and how.

    Attributes:
        limit: number of articles to convert; no more of the dump is downloaded than they need.
        keep_dump: keep the downloaded dump beside the text.
        on_error: `stop` at a damaged part of the dump, or `skip` it.
    """

    language: str
    output_dir: Path
    date: str = "latest"
    mirror: str = SERVER
    limit: int | None = None
    workers: int = 1
    keep_dump: bool = False
    on_error: str = "stop"
    overwrite: bool = False
    contact: str | None = None

    def __post_init__(self) -> None:
        for flag, value in (("--limit", self.limit), ("--workers", self.workers)):
            if value is not None and value < 1:
                raise UsageError(f"{flag} {value}: must be 1 or more")
        if not self.mirror.startswith(("http://", "https://")):
            raise UsageError(f"--mirror {self.mirror}: must be a URL that starts with https:// or http://")

    def target(self, dump: Dump) -> Path:
        """Return the file for the articles."""
        first = f".first-{self.limit}" if self.limit else ""
        return self.output_dir / f"{dump.stem}{first}.jsonl"


@dataclass(frozen=True)
class Watcher:
    """Callbacks for progress: `size(bytes)` of the dump, `download(bytes)`, `convert(progress, bytes)`."""

    size: Callable[[int], None] = lambda total: None
    download: Callable[[int], None] = lambda done: None
    convert: Callable[[DumpProgress, int | None], None] = lambda progress, total: None
    say: Callable[[str], None] = lambda text: None


def make(
    request: WikiRequest, client: Client, dump: Dump, watch: Watcher
) -> tuple[Path, DumpProgress | None]:
    """Write the articles of a dump. Return the file, and counts of pages; None if the file existed already.

    Raises NemolaunchError with what to do; an earlier file of that name is then unchanged.
    """
    target = request.target(dump)
    if target.exists() and not request.overwrite:
        return target, None
    try:
        request.output_dir.mkdir(parents=True, exist_ok=True)
        if request.limit:
            progress = _beginning(request, client, dump, target, watch)
            _list_damaged(target, progress)
            return target, progress
        packed = fetch(client, dump, request.output_dir, watch)
        size = packed.stat().st_size
        progress = convert(
            split(_chunks(packed)),
            target,
            workers=request.workers,
            on_error=request.on_error,
            report=lambda progress: watch.convert(progress, size),
        )
    except OSError as error:
        raise NemolaunchError(
            f"{error.strerror or error} ({error.filename or request.output_dir}); finished work is kept, the"
            " same command resumes"
        ) from None
    _list_damaged(target, progress)
    if not request.keep_dump:
        packed.unlink()
    return target, progress


def fetch(client: Client, dump: Dump, folder: Path, watch: Watcher) -> Path:
    """Return the dump in the folder; download it if it is missing, and verify its SHA-1.

    A file with a wrong checksum is downloaded again once. Raises NemolaunchError if it is wrong again.
    """
    packed = folder / f"{dump.stem}.xml.bz2"
    part = folder / f".{packed.name}.part"
    if packed.exists():
        return packed
    for attempt in (1, 2):
        digest, done = hashlib.sha1(usedforsecurity=False), 0
        for chunk in client.stream(dump.url, part, watch.size):
            digest.update(chunk)
            done += len(chunk)
            watch.download(done)
        if digest.hexdigest() == dump.sha1:
            move(part, packed)
            return packed
        part.unlink()
        if attempt == 1:
            watch.say("the checksum is wrong: downloading the dump again")
    raise NemolaunchError(
        f"{dump.url} has SHA-1 {digest.hexdigest()}, but its checksum file says {dump.sha1}, twice in a row;"
        " try another --mirror or --date"
    )


def _beginning(
    request: WikiRequest, client: Client, dump: Dump, target: Path, watch: Watcher
) -> DumpProgress:
    """Convert the first articles while the dump is being downloaded, then stop the download."""
    packed = request.output_dir / f"{dump.stem}.xml.bz2"
    part = packed.with_name(f".{packed.name}.part")
    chunks = _chunks(packed) if packed.exists() else client.stream(dump.url, part)
    keep = part.exists() or request.keep_dump
    try:
        return convert(
            split(chunks),
            target,
            workers=request.workers,
            on_error=request.on_error,
            limit=request.limit,
            report=lambda progress: watch.convert(progress, None),
        )
    finally:
        chunks.close()
        if not keep:
            part.unlink(missing_ok=True)


def _chunks(path: Path) -> Generator[bytes, None, None]:
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk


def _list_damaged(target: Path, progress: DumpProgress) -> None:
    """Write the list of skipped parts of the dump beside the text."""
    path = rejects_of(target)
    path.unlink(missing_ok=True)
    if progress.damaged:
        rows = [{"byte": offset, "reason": reason} for offset, reason in progress.damaged]
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def rejects_of(target: Path) -> Path:
    """Return the file that lists the skipped parts of a dump."""
    return target.with_name(f"{target.stem}_rejects.jsonl")
