"""Documents out of pieces, and why some of them are none."""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from nemolaunch.tokens.pieces import READ_BYTES, Piece

# A line longer than this is read by one worker at a time, to bound the memory of all of them together.
GIANT_BYTES = 24 << 20
# Read beyond a piece at once, for the end of its last line.
BEHIND_BYTES = 1 << 16


@dataclass(frozen=True)
class Document:
    """One document: its texts by output key. Several texts of a key are several sequences."""

    line: int
    texts: list[list[str]]


@dataclass(frozen=True)
class Reject:
    """A record that is no document: which file of the piece, which line in the piece (from 1), why."""

    file: int
    line: int
    reason: str


class Lines:
    """The lines that begin in a piece. `count` tells how many there were, `blank` how many of them empty."""

    def __init__(self, piece: Piece, columns: tuple[str, ...], block: Block) -> None:
        self.piece = piece
        self.columns = columns
        self.block = block
        self.count = 0
        self.blank = 0

    def __iter__(self) -> Iterator[Document | Reject]:
        import orjson

        block, at, end = self.block.data, self.block.begin, self.block.end
        view = memoryview(block)
        if self.piece.start == 0 and not self.piece.spooled and block.startswith(codecs.BOM_UTF8):
            at = 3
        columns, loads = self.columns, orjson.loads
        line = 0
        while at < end:
            stop = block.find(b"\n", at, end)
            stop = end if stop < 0 else stop
            line += 1
            found: Any
            try:
                record = loads(view[at:stop])
                found = [texts_of(record, column) for column in columns]
            except ValueError:
                found = self._again(bytes(view[at:stop]))
            at = stop + 1
            if isinstance(found, list):
                yield Document(line, found)
            elif found:
                yield Reject(0, line, found)
        self.count = line
        if self.piece.broken:
            yield Reject(0, line + 1, self.piece.broken)

    def _again(self, line: bytes) -> list[list[str]] | str:
        """Python's own reader, which takes some lines orjson does not (NaN, deep nesting); the reason if it
        fails too.

        An empty reason means a blank line.
        """
        if not line.strip():
            self.blank += 1
            return ""
        try:
            record = json.loads(line.decode())
            texts = [texts_of(record, column) for column in self.columns]
            for text in (text for column in texts for text in column):
                text.encode()
            return texts
        except UnicodeDecodeError as error:
            return f"invalid UTF-8: byte {line[error.start]:#04x} at byte {error.start + 1} of the line"
        except UnicodeEncodeError as error:
            return f"a lone surrogate \\u{ord(error.object[error.start]):04x} in the text: not valid Unicode"
        except json.JSONDecodeError as error:
            return f"invalid JSON: {error.msg} at character {error.colno}"
        except RecursionError:
            return "invalid JSON: nested too deeply"
        except ValueError as error:
            return str(error)


def texts_of(record: Any, column: str) -> list[str]:
    """The texts a record has in a column. ValueError, with the reason, if it has none."""
    if not isinstance(record, dict):
        raise ValueError(f"not an object with keys but {kind(record)}")
    if column not in record:
        raise ValueError(f"no key {column!r}; it has {', '.join(map(repr, list(record)[:8])) or 'none'}")
    value = record[column]
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return value
    raise ValueError(f"{column!r} is {kind(value)}, not a string")


def kind(value: Any) -> str:
    """What a JSON value is, for a message."""
    names = {
        "NoneType": "null", "bool": "true or false", "int": "a number", "float": "a number",
        "str": "a string",
        "dict": "an object", "list": "a list that is not all strings", "bytes": "binary",
    }  # fmt: skip
    return names.get(type(value).__name__, type(value).__name__)


@dataclass(frozen=True)
class Block:
    """Bytes of which `[begin, end)` are whole lines."""

    data: bytes
    begin: int
    end: int


def read_lines(piece: Piece, giant: Callable[[], None]) -> Block:
    """All lines that begin in `[start, stop)` of the file, the last one whole.

    `giant` is called once before more than `GIANT_BYTES` beyond the piece are read.
    """
    with open(piece.paths[0], "rb", buffering=0) as file:
        fd = file.fileno()
        if piece.spooled and piece.stop > GIANT_BYTES:
            giant()
        # The byte before tells whether a line begins at the start; the bytes behind mostly hold the line end.
        first = max(piece.start - 1, 0)
        data = _pread(fd, first, piece.stop - first + BEHIND_BYTES)
        stop = piece.stop - first
        begin = 0 if piece.start == 0 else data.find(b"\n", 0, stop) + 1
        if (piece.start > 0 and begin == 0) or begin >= stop:
            return Block(b"", 0, 0)
        end = data.find(b"\n", stop - 1) + 1
        if end == 0 and len(data) == stop + BEHIND_BYTES:
            data = _with_rest_of_line(fd, data, first + len(data), giant)
            end = len(data)
        return Block(data, begin, end or len(data))


def _with_rest_of_line(fd: int, block: bytes, at: int, giant: Callable[[], None]) -> bytes:
    parts, asked, start = [block], False, at
    while more := os.pread(fd, READ_BYTES, at):
        end = more.find(b"\n")
        parts.append(more if end < 0 else more[: end + 1])
        if end >= 0:
            break
        at += len(more)
        if at - start > GIANT_BYTES and not asked:
            giant()
            asked = True
    return b"".join(parts)


def _pread(fd: int, at: int, count: int) -> bytes:
    """`count` bytes, fewer only at the end of the file (one call gives at most 2 GiB)."""
    parts = [os.pread(fd, count, at)]
    while parts[-1] and (left := count - sum(map(len, parts))):
        parts.append(os.pread(fd, left, at + count - left))
    return parts[0] if len(parts) == 1 else b"".join(parts)


class Rows:
    """The rows of some row groups of a parquet file."""

    def __init__(self, piece: Piece, columns: tuple[str, ...]) -> None:
        self.piece = piece
        self.columns = columns
        self.count = 0
        self.blank = 0

    def __iter__(self) -> Iterator[Document | Reject]:
        import pyarrow.parquet as pq

        if self.piece.broken:
            yield Reject(0, 1, self.piece.broken)
            return
        row = 0
        try:
            with pq.ParquetFile(self.piece.paths[0]) as file:
                groups = list(range(self.piece.start, self.piece.stop))
                have = file.schema_arrow.names
                missing = [c for c in self.columns if c not in have]
                if missing:
                    yield Reject(0, 1, f"no column {missing[0]!r}; it has {', '.join(map(repr, have[:8]))}")
                    return
                for batch in file.iter_batches(
                    1024, row_groups=groups, columns=list(dict.fromkeys(self.columns))
                ):
                    for record in batch_records(batch, self.columns):
                        row += 1
                        yield record_to_document(record, self.columns, row)
        except (OSError, ValueError) as error:
            yield Reject(0, row + 1, f"damaged parquet file: {error}")
        self.count = row


def batch_records(batch: Any, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Rows as dictionaries. A batch with invalid UTF-8 is read value by value, so that only the bad one
    is lost."""
    try:
        yield from batch.to_pylist()
        return
    except UnicodeDecodeError:
        pass
    for i in range(batch.num_rows):
        record = {}
        for column in dict.fromkeys(columns):
            value = batch.column(column)[i]
            try:
                record[column] = value.as_py()
            except UnicodeDecodeError:
                record[column] = b""
        yield record


def record_to_document(record: dict[str, Any], columns: tuple[str, ...], line: int) -> Document | Reject:
    """A row as a document, or why it is none."""
    try:
        return Document(line, [texts_of(record, column) for column in columns])
    except ValueError as error:
        reason = str(error).replace("binary, not a string", "invalid UTF-8 or binary, not a string")
        return Reject(0, line, reason)


class Texts:
    """Plain text files, each of them one document."""

    def __init__(self, piece: Piece) -> None:
        self.piece = piece
        self.count = 0
        self.blank = 0

    def __iter__(self) -> Iterator[Document | Reject]:
        for number, path in enumerate(self.piece.paths):
            try:
                with open(path, "rb") as file:
                    data = file.read()
                yield Document(1, [[data.decode("utf-8-sig")]])
            except UnicodeDecodeError as error:
                line = data.count(b"\n", 0, error.start) + 1
                yield Reject(
                    number, line, f"invalid UTF-8: byte {data[error.start]:#04x} at byte {error.start + 1}"
                )
            except OSError as error:
                yield Reject(number, 1, f"cannot be read: {error.strerror}")


def records(piece: Piece, columns: tuple[str, ...], giant: Callable[[], None]) -> Lines | Rows | Texts:
    """What a piece holds, one by one."""
    if piece.kind == "lines":
        return Lines(piece, columns, read_lines(piece, giant))
    return Rows(piece, columns) if piece.kind == "rows" else Texts(piece)
