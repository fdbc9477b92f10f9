"""Pieces of work: what a worker tokenises at a time."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeAlias

from nemolaunch.data.packed import READ_BYTES, Damage, PackedReader
from nemolaunch.data.text_files import PACKINGS
from nemolaunch.system import remote
from nemolaunch.tokenization.sources import InputFile

# Whole files smaller than this part of a piece are put together into one
SMALL = 8
MOST_FILES = 4096


@dataclass(frozen=True)
class InputPiece:
    """Consecutive lines of a file, row groups of a parquet file, or some whole JSONL or text files.

    Attributes:
        number: its place in the output.
        source: the place of its (first) file among the sources; `places`: of each, if there are several.
        kind: `lines`, `rows` or `text`.
        paths: files to read; if several, each as a whole.
        start, stop: bytes in which its lines start, or row group numbers.
        size: bytes of input, for progress and totals.
        end: where those bytes end in the (last) source.
        broken: why its file could not be read beyond it.
        lost_bytes: how much of its file could not be read there.
        spooled: its path is a temporary copy, to be deleted when it is done.
    """

    number: int
    source: int
    kind: str
    paths: tuple[str, ...]
    start: int
    stop: int
    size: int
    end: int = 0
    broken: str | None = None
    lost_bytes: int = 0
    spooled: bool = False
    places: tuple[int, ...] = ()

    def place_of(self, file: int) -> int:
        """Return the place among the sources of one of its files; -1 is the last."""
        return self.places[file] if self.places else self.source


# Bytes of a JSONL file in which lines start, or row groups of a parquet file; None: to the end
Range: TypeAlias = tuple[int, int | None]
WHOLE: Range = (0, None)


def cut(
    sources: Sequence[InputFile],
    piece_bytes: int,
    spool: Path,
    done: int,
    ranges: Sequence[Range] | None = None,
) -> Iterator[InputPiece]:
    """Yield all pieces in order. The same sources and `piece_bytes` give the same pieces.

    Compressed files are unpacked into `spool`, one piece at a time, as the iterator advances; pieces below
    number `done` are not.

    Args:
        ranges: which part of each source; all of it by default. Compressed and text files have only one.
    """
    number = 0
    small: list[int] = []
    size = 0
    for place, source in enumerate(sources):
        if source.kind == "text":
            continue
        wanted = ranges[place] if ranges else WHOLE
        is_small = source.kind == "jsonl" and wanted == WHOLE and source.size < piece_bytes // SMALL
        if small and not (
            is_small and place == small[-1] + 1 and len(small) < MOST_FILES and size < piece_bytes
        ):
            yield _of_files(number, "lines", sources, small, size)
            number, small, size = number + 1, [], 0
        if is_small:
            small.append(place)
            size += source.size
            continue
        for piece in _cut_one(place, source, wanted, piece_bytes, spool, number, done):
            yield piece
            number = piece.number + 1
    if small:
        yield _of_files(number, "lines", sources, small, size)
        number += 1
    yield from _cut_texts(sources, piece_bytes, number)


def _of_files(
    number: int, kind: str, sources: Sequence[InputFile], places: list[int], size: int
) -> InputPiece:
    """Return a piece of some whole files."""
    files = [sources[place] for place in places]
    stop = files[0].size if kind == "lines" and len(files) == 1 else len(files)
    paths = tuple(file.path for file in files)
    return InputPiece(number, places[0], kind, paths, 0, stop, size, files[-1].size, places=tuple(places))


def _cut_one(
    place: int, source: InputFile, wanted: Range, piece_bytes: int, spool: Path, number: int, done: int
) -> Iterator[InputPiece]:
    if source.kind == "jsonl":
        end = source.size if wanted[1] is None else wanted[1]
        for i, start in enumerate(range(wanted[0], end, piece_bytes)):
            stop = min(start + piece_bytes, end)
            yield InputPiece(number + i, place, "lines", (source.path,), start, stop, stop - start, stop)
    elif source.kind == "parquet":
        yield from _cut_parquet(place, source, wanted, number)
    else:
        yield from _cut_compressed(place, source, piece_bytes, spool, number, done)


def num_row_groups(path: str) -> int:
    """Return how many row groups a parquet file has. Raises OSError or ValueError if it is not one."""
    import pyarrow.parquet as pq

    with remote.opened(path) as stored, pq.ParquetFile(stored) as file:
        return int(file.num_row_groups)


def _cut_parquet(place: int, source: InputFile, wanted: Range, number: int) -> Iterator[InputPiece]:
    try:
        groups = num_row_groups(source.path)
    except (OSError, ValueError) as error:
        yield InputPiece(
            number,
            place,
            "rows",
            (source.path,),
            0,
            0,
            source.size,
            broken=f"not a parquet file: {error}",
            lost_bytes=source.size,
        )
        return
    for i in range(wanted[0], groups if wanted[1] is None else wanted[1]):
        begin, end = (source.size * n // groups for n in (i, i + 1))
        yield InputPiece(number, place, "rows", (source.path,), i, i + 1, end - begin, end)
        number += 1


def _cut_texts(sources: Sequence[InputFile], piece_bytes: int, number: int) -> Iterator[InputPiece]:
    group: list[int] = []
    size = 0
    for place, source in enumerate(sources):
        if source.kind != "text":
            continue
        group.append(place)
        size += source.size
        if size >= piece_bytes or len(group) == MOST_FILES:
            yield _of_files(number, "text", sources, group, size)
            number, group, size = number + 1, [], 0
    if group:
        yield _of_files(number, "text", sources, group, size)


def _cut_compressed(
    place: int, source: InputFile, piece_bytes: int, spool: Path, number: int, done: int
) -> Iterator[InputPiece]:
    """Unpack a file, cutting it at the first end of a line after `piece_bytes`."""
    spool.mkdir(parents=True, exist_ok=True)
    with remote.opened(source.path) as packed:
        unpacker = Unpacker(packed, source)
        before = 0
        while not unpacker.ended:
            path = spool / f"{number:09d}.jsonl"
            with open(os.devnull if number < done else path, "wb") as out:
                written = unpacker.copy_lines(out, piece_bytes)
            size, before = unpacker.position - before, unpacker.position
            broken, lost = (d.reason, d.lost_bytes) if (d := unpacker.damage) else (None, 0)
            if written or broken:
                yield InputPiece(
                    number, place, "lines", (str(path),), 0, written, size, before, broken, lost, spooled=True
                )
                number += 1
            else:
                path.unlink(missing_ok=True)


class Unpacker:
    """Reader of a JSONL file that is read from its start: a compressed one, or one on a hub.

    Attributes:
        position: in the file as it is stored.
        damage: what is wrong with the file just after the lines copied last.
        ended: whether there are no more lines.
    """

    def __init__(self, packed: IO[bytes], source: InputFile) -> None:
        self.packed = packed
        self.source = source
        self.damage: Damage | None = None
        self.ended = False
        self.rest = b""
        self._started = False
        compressed = source.kind in PACKINGS.values()
        self.reader = PackedReader(packed, source.kind, source.size) if compressed else None

    @property
    def position(self) -> int:
        """Return how much of the file has been read."""
        return self.reader.position if self.reader else self.packed.tell()

    def read(self) -> bytes:
        """Return the next block; empty at the end, and at damage, after which there may be more."""
        if self.reader is None:
            block = self.packed.read(READ_BYTES)
            self.ended = not block
            return block
        block = self.reader.read()
        self.damage, self.ended = self.reader.damage, self.reader.ended and not block
        if block and not self._started:
            self._started = True
            return block.removeprefix(codecs.BOM_UTF8) or self.read()
        return block

    def copy_lines(self, out: IO[bytes], wanted: int) -> int:
        """Copy complete lines with at least `wanted` bytes in total, fewer before damage. Return the number."""
        written, self.damage = 0, None
        while True:
            block = self.rest or self.read()
            self.rest = b""
            if not block:
                return written
            end = block.find(b"\n", max(wanted - written - 1, 0)) + 1
            if end:
                block, self.rest = block[:end], block[end:]
            out.write(block)
            written += len(block)
            if end:
                return written
