"""A sample of the input's texts, to try an engine on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import islice

from nemolaunch.system import remote
from nemolaunch.tokenization.pieces import InputPiece, Unpacker
from nemolaunch.tokenization.records import Block, LineReader, Value, records
from nemolaunch.tokenization.sources import InputFile

FILES = 8
FILE_BYTES = 1 << 18
DOCUMENTS = 1024


def texts(sources: list[InputFile], columns: tuple[tuple[str, ...], ...]) -> list[str]:
    """Return the first texts of up to `FILES` files spread over the input.

    What cannot be read is skipped; the run reports it.
    """
    step = max(1, len(sources) // FILES)
    found: list[str] = []
    for place in range(0, len(sources), step):
        size = 0
        for values in islice(_documents(sources[place], columns[place]), DOCUMENTS):
            for value in values:
                found += [value] if isinstance(value, str) else value
                size += sum(map(len, value))
            if size > FILE_BYTES:
                break
    return found


def _documents(source: InputFile, columns: tuple[str, ...]) -> Iterator[list[Value]]:
    if source.kind in ("parquet", "text"):
        kind = "rows" if source.kind == "parquet" else "text"
        piece = InputPiece(0, 0, kind, (source.path,), 0, 1, source.size)
        found = records(piece, [columns], lambda: None)
    else:
        head = _head(source)
        piece = InputPiece(0, 0, "lines", (source.path,), 0, FILE_BYTES, FILE_BYTES)
        found = LineReader(piece, columns, Block(head, 0, len(head)))
    with contextlib.suppress(OSError, ValueError):
        yield from found


def _head(source: InputFile) -> bytes:
    """Return the first bytes of a JSONL file, unpacked; an incomplete last line will be rejected."""
    try:
        with remote.opened(source.path) as file:
            if source.kind == "jsonl":
                return file.read(FILE_BYTES)
            return Unpacker(file, source).read()[:FILE_BYTES]
    except (OSError, EOFError, ValueError):
        return b""
