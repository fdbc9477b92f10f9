"""Conversion of a dump to JSON Lines, in parallel and in order, resumed after a kill."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from pathlib import Path

from nemolaunch.download.multistream import Bz2Stream, unpack
from nemolaunch.download.pages import PageCounts, Site, read_pages, read_site
from nemolaunch.errors import NemolaunchError
from nemolaunch.system.atomic_files import move, write_json
from nemolaunch.system.json_files import read_json
from nemolaunch.system.worker_pool import pool

SAVE_EVERY_S = 10.0


@dataclass
class DumpProgress:
    """Progress of a conversion: bytes of the dump done, bytes written, and counts of pages.

    `damaged` are (offset in the dump, reason) of skipped streams.
    """

    offset: int = 0
    written: int = 0
    counts: PageCounts = field(default_factory=PageCounts)
    damaged: list[tuple[int, str]] = field(default_factory=list)

    @staticmethod
    def read(path: Path) -> DumpProgress:
        """Read the saved progress, or return that of a new conversion."""
        try:
            values = read_json(path)
        except FileNotFoundError:
            return DumpProgress()
        values["counts"] = PageCounts(**values["counts"])
        values["damaged"] = [(offset, reason) for offset, reason in values["damaged"]]
        return DumpProgress(**values)

    def save(self, path: Path) -> None:
        """Save it atomically."""
        write_json(path, asdict(self))


def convert(
    streams: Iterator[Bz2Stream],
    target: Path,
    *,
    workers: int,
    on_error: str = "stop",
    limit: int | None = None,
    report: Callable[[DumpProgress], None] = lambda _: None,
) -> DumpProgress:
    """Write the articles of all streams, or the first `limit`, to `target`, atomically.

    Streams that an earlier, killed call has done are skipped. Raises NemolaunchError if this is not a dump,
    and with `on_error` `stop` for a damaged stream.
    """
    part, saved = target.with_name(f".{target.name}.part"), target.with_name(f".{target.name}.progress")
    progress = DumpProgress() if limit else DumpProgress.read(saved)
    site = _site(streams)
    with open(part, "a+b") as out:
        if os.fstat(out.fileno()).st_size < progress.written:
            progress = DumpProgress()
        out.truncate(progress.written)
        out.seek(progress.written)
        last = time.monotonic()
        for stream, lines, counts, reason in _parsed(streams, progress.offset, site, workers):
            if reason:
                _damaged(stream, reason, on_error, progress)
            if limit:
                lines = lines[: limit - progress.counts.articles]
                counts.articles = len(lines)
            out.writelines(lines)
            progress.offset, progress.written = stream.end, progress.written + sum(map(len, lines))
            progress.counts.add(counts)
            report(progress)
            if limit and progress.counts.articles >= limit:
                break
            if not limit and time.monotonic() - last > SAVE_EVERY_S:
                out.flush()
                os.fsync(out.fileno())
                progress.save(saved)
                last = time.monotonic()
        out.flush()
        os.fsync(out.fileno())
    if not progress.counts.articles:
        raise NemolaunchError(f"the dump has no article with text ({progress.counts})")
    saved.unlink(missing_ok=True)
    move(part, target)
    return progress


def _site(streams: Iterator[Bz2Stream]) -> Site:
    head = next(streams, None)
    try:
        if head is None or head.offset:
            raise ValueError("it does not start with a bzip2 stream")
        return read_site(unpack(head))
    except ValueError as error:
        raise NemolaunchError(f"this is not a multistream dump of Wikimedia: {error}") from None


def _damaged(stream: Bz2Stream, reason: str, on_error: str, progress: DumpProgress) -> None:
    if on_error == "stop":
        raise NemolaunchError(
            f"the dump is damaged between bytes {stream.offset:,} and {stream.end:,}: {reason}. Use"
            " --on-error skip to skip these pages, or another --date"
        )
    progress.damaged.append((stream.offset, reason))


Parsed = tuple[list[bytes], PageCounts, "str | None"]


def _parsed(
    streams: Iterator[Bz2Stream], done: int, site: Site, workers: int
) -> Iterator[tuple[Bz2Stream, list[bytes], PageCounts, str | None]]:
    """Yield the streams after byte `done` with their lines, in order; a few per worker are in progress."""
    waiting: deque[tuple[Bz2Stream, Future[Parsed]]] = deque()
    with pool(workers) as executor:
        for stream in streams:
            if stream.offset < done:
                continue
            waiting.append((stream, executor.submit(parse, stream, site)))
            if len(waiting) >= 4 * workers:
                first, future = waiting.popleft()
                yield (first, *future.result())
        for first, future in waiting:
            yield (first, *future.result())


def parse(stream: Bz2Stream, site: Site) -> Parsed:
    """Return a stream's articles as lines of JSON, counts of its pages, and why it could not be read."""
    import orjson

    try:
        pages = read_pages(unpack(stream), site)
    except ValueError as error:
        return [], PageCounts(), str(error)
    return [orjson.dumps(article) + b"\n" for article in pages.articles], pages.counts, None
