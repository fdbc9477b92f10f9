"""Documents in pieces of the input, and the reasons for rejecting records."""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from nemolaunch.system import remote
from nemolaunch.tokenization.hashing import hash_of_bytes
from nemolaunch.tokenization.pieces import READ_BYTES, InputPiece

# A line longer than this is read by one worker at a time, to bound the memory of all of them together.
GIANT_BYTES = 24 << 20
# Bytes read beyond a piece at once, for the end of its last line.
BEHIND_BYTES = 1 << 16
# Asked for first of a file that is probably small: the memory for `READ_BYTES` would take longer than the file
SMALL_READ_BYTES = 1 << 16


# Value of a record under one key: its text, or several texts that are several sequences of one document.
Value: TypeAlias = "str | list[str]"


@dataclass(frozen=True)
class Reject:
    """A record that is not a document: which file of the piece, which line in the piece (from 1), why."""

    file: int
    line: int
    reason: str


class RecordReader:
    """Iterator over the documents of a piece: yields the values of each, one per column.

    Attributes:
        file: which of the files of the piece is being read.
        count: records read so far.
        blank: how many of them are empty lines.
        rejects: those that are not documents.
        hashes: of files that have been read as a whole, by path.
    """

    def __init__(self, piece: InputPiece, columns: tuple[str, ...]) -> None:
        self.piece = piece
        self.columns = columns
        self.file = 0
        self.count = 0
        self.blank = 0
        self.rejects: list[Reject] = []
        self.hashes: dict[str, str] = {}

    def __iter__(self) -> Iterator[list[Value]]:
        raise NotImplementedError

    def _reject(self, line: int, reason: str, file: int = 0) -> None:
        self.rejects.append(Reject(file, line, reason))


class LineReader(RecordReader):
    """Reader of the lines that start in a piece."""

    def __init__(self, piece: InputPiece, columns: tuple[str, ...], block: Block) -> None:
        super().__init__(piece, columns)
        self.block = block

    def __iter__(self) -> Iterator[list[Value]]:
        import orjson

        block, at, end = self.block.data, self.block.begin, self.block.end
        if self.piece.start == 0 and not self.piece.spooled and block.startswith(codecs.BOM_UTF8):
            at = 3
        view, find, loads, columns = memoryview(block), block.find, orjson.loads, self.columns
        line = 0
        while at < end:
            stop = find(b"\n", at, end)
            stop = end if stop < 0 else stop
            self.count = line = line + 1
            try:
                record = loads(view[at:stop])
                values = [record[column] for column in columns]
                for value in values:
                    if type(value) is not str:
                        raise TypeError
            except (ValueError, KeyError, TypeError) as error:
                inner = self._inside(record) if type(error) is KeyError else None
                found = inner or self._again(bytes(view[at:stop]))
                at = stop + 1
                if isinstance(found, list):
                    yield found
                elif found:
                    self._reject(line, found)
                continue
            at = stop + 1
            yield values
        if self.piece.broken:
            self._reject(line + 1, self.piece.broken)

    def _inside(self, record: Any) -> list[Value] | None:
        """Return the values under keys such as `data.text`, if the record has them."""
        if not any("." in column for column in self.columns):
            return None
        try:
            return [value_of(record, column) for column in self.columns]
        except ValueError:
            return None

    def _again(self, line: bytes) -> list[Value] | str:
        """Parse a line with Python's own parser, which accepts some that orjson rejects (NaN, deep nesting).

        Returns the reason if it fails too, which is empty for a blank line.
        """
        if not line.strip():
            self.blank += 1
            return ""
        try:
            record = json.loads(line.decode())
            values = [value_of(record, column) for column in self.columns]
            for value in values:
                "".join(value).encode()
            return values
        except UnicodeDecodeError as error:
            return f"invalid UTF-8: byte {line[error.start]:#04x} at byte {error.start + 1} of the line"
        except UnicodeEncodeError as error:
            return f"a lone surrogate \\u{ord(error.object[error.start]):04x} in the text: not valid Unicode"
        except json.JSONDecodeError as error:
            return f"invalid JSON: {error.msg.removesuffix(' at')} at character {error.colno}"
        except RecursionError:
            return "invalid JSON: nested too deeply"
        except ValueError as error:
            return str(error)


class FilesReader(RecordReader):
    """Reader of some whole JSONL files, which are small.

    Args:
        columns_of: the columns of each file.
    """

    def __init__(self, piece: InputPiece, columns_of: Sequence[tuple[str, ...]]) -> None:
        super().__init__(piece, columns_of[0])
        self.columns_of = columns_of

    def __iter__(self) -> Iterator[list[Value]]:
        for number, path in enumerate(self.piece.paths):
            self.file = number
            data = _whole(path)
            self.hashes[path] = hash_of_bytes(data)
            found = LineReader(self.piece, self.columns_of[number], Block(data, 0, len(data)))
            yield from found
            self.blank += found.blank
            self.rejects += [replace(reject, file=number) for reject in found.rejects]


def _whole(path: str) -> bytes:
    if remote.is_url(path):
        return remote.read(path)
    file = os.open(path, os.O_RDONLY)
    parts, asked = [], SMALL_READ_BYTES
    try:
        while part := os.read(file, asked):
            parts.append(part)
            if len(part) == asked:
                asked = READ_BYTES
    finally:
        os.close(file)
    return b"".join(parts)


def value_of(record: Any, column: str) -> Value:
    """Return a record's value in a column. Raises ValueError with the reason if it is not text."""
    if not isinstance(record, dict):
        raise ValueError(f"not an object with keys but {kind(record)}")
    if column in record:
        return checked_value(record[column], column)
    found: Any = record
    for name in column.split("."):
        if not isinstance(found, dict) or name not in found:
            raise ValueError(f"no key {column!r}; it has {', '.join(map(repr, list(record)[:8])) or 'none'}")
        found = found[name]
    return checked_value(found, column)


def checked_value(value: Any, column: str) -> Value:
    """Return a value if it is text. Raises ValueError with the reason if it is not."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return value
    raise ValueError(f"{column!r} is {kind(value)}, not a string")


def kind(value: Any) -> str:
    """Return what kind of value JSON has here, for a message."""
    names = {
        "NoneType": "null", "bool": "true or false", "int": "a number", "float": "a number",
        "str": "a string",
        "dict": "an object", "list": "a list that is not all strings", "bytes": "invalid UTF-8 or binary",
    }  # fmt: skip
    return names.get(type(value).__name__, type(value).__name__)


@dataclass(frozen=True)
class Block:
    """Bytes, of which `[begin, end)` are complete lines."""

    data: bytes
    begin: int
    end: int


# Reads so many bytes of a file from a position on, perhaps fewer
ReadRange: TypeAlias = Callable[[int, int], bytes]


@contextmanager
def _ranges_of(path: str) -> Iterator[ReadRange]:
    if remote.is_url(path):
        yield lambda count, at: remote.read_range(path, at, at + count)
        return
    with open(path, "rb", buffering=0) as file:
        fd = file.fileno()
        yield lambda count, at: os.pread(fd, count, at)


def read_lines(piece: InputPiece, giant: Callable[[], None]) -> Block:
    """Read all lines that start in `[start, stop)` of the file, including the end of the last one.

    `giant` is called once before more than `GIANT_BYTES` beyond the piece are read.
    """
    with _ranges_of(piece.paths[0]) as read:
        if piece.spooled and piece.stop > GIANT_BYTES:
            giant()
        # The byte before shows whether a line starts here; those after usually contain the end of the last.
        first = max(piece.start - 1, 0)
        data = _read_all(read, first, piece.stop - first + BEHIND_BYTES)
        stop = piece.stop - first
        begin = 0 if piece.start == 0 else data.find(b"\n", 0, stop) + 1
        if (piece.start > 0 and begin == 0) or begin >= stop:
            return Block(b"", 0, 0)
        end = data.find(b"\n", stop - 1) + 1
        if end == 0 and len(data) == stop + BEHIND_BYTES:
            data = _with_rest_of_line(read, data, first + len(data), giant)
            end = len(data)
        return Block(data, begin, end or len(data))


def _with_rest_of_line(read: ReadRange, block: bytes, at: int, giant: Callable[[], None]) -> bytes:
    parts, asked, start = [block], False, at
    while more := read(READ_BYTES, at):
        end = more.find(b"\n")
        parts.append(more if end < 0 else more[: end + 1])
        if end >= 0:
            break
        at += len(more)
        if at - start > GIANT_BYTES and not asked:
            giant()
            asked = True
    return b"".join(parts)


def _read_all(read: ReadRange, at: int, count: int) -> bytes:
    """Read `count` bytes, fewer only at the end of the file (one call returns at most 2 GiB)."""
    parts = [read(count, at)]
    while parts[-1] and (left := count - sum(map(len, parts))):
        parts.append(read(left, at + count - left))
    return parts[0] if len(parts) == 1 else b"".join(parts)


class ParquetReader(RecordReader):
    """Reader of the rows of some row groups of a parquet file."""

    def __iter__(self) -> Iterator[list[Value]]:
        import pyarrow.parquet as pq

        if self.piece.broken:
            self._reject(1, self.piece.broken)
            return
        rows = 0
        groups = list(range(self.piece.start, self.piece.stop))
        try:
            with (
                remote.opened(self.piece.paths[0]) as stored,
                pq.ParquetFile(stored, pre_buffer=remote.is_url(self.piece.paths[0])) as file,
            ):
                have = file.schema_arrow.names
                missing = [c for c in self.columns if not has_column(file.schema_arrow, c)]
                if missing:
                    self._reject(1, f"no column {missing[0]!r}; it has {', '.join(map(repr, have[:8]))}")
                    return
                columns = list(dict.fromkeys(self.columns))
                rows = sum(file.metadata.row_group(group).num_rows for group in groups)
                for batch in file.iter_batches(1024, row_groups=groups, columns=columns):
                    yield from self._batch(batch)
        except (OSError, ValueError) as error:
            lost = f"; {rows - self.count:,} rows of row group {groups[0]} are lost" if rows else ""
            self._reject(self.count + 1, f"damaged parquet file: {error}{lost}")

    def _batch(self, batch: Any) -> Iterator[list[Value]]:
        columns = [column_values(column_of(batch, column)) for column in self.columns]
        for values in zip(*columns, strict=True):
            self.count += 1
            if all(type(value) is str for value in values):
                yield list(values)
                continue
            try:
                pairs = zip(values, self.columns, strict=True)
                yield [checked_value(value, column) for value, column in pairs]
            except ValueError as error:
                self._reject(self.count, str(error))


def has_column(schema: Any, column: str) -> bool:
    """Return whether a parquet file has a column, or with `data.text` a field of one."""
    if column in schema.names:
        return True
    name, *inner = column.split(".")
    if not inner or name not in schema.names:
        return False
    found = schema.field(name).type
    for name in inner:
        index = found.get_field_index(name) if hasattr(found, "get_field_index") else -1
        if index < 0:
            return False
        found = found.field(index).type
    return True


def column_of(batch: Any, column: str) -> Any:
    """Return a column, or with `data.text` a field of one."""
    if column in batch.schema.names:
        return batch.column(column)
    import pyarrow.compute as pc

    name, *inner = column.split(".")
    return pc.struct_field(batch.column(name), inner)


def column_values(column: Any) -> list[Any]:
    """Return a column's values, decoded one by one if there is invalid UTF-8: only the bad one is lost."""
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        return [_decoded(value) for value in column]


def _decoded(value: Any) -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError:
        return b""


class TextReader(RecordReader):
    """Reader of plain text files, each of them one document."""

    def __iter__(self) -> Iterator[list[Value]]:
        for number, path in enumerate(self.piece.paths):
            self.file = number
            try:
                data = _whole(path)
                self.hashes[path] = hash_of_bytes(data)
                text = data.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                line = data.count(b"\n", 0, error.start) + 1
                where = f"byte {data[error.start]:#04x} at byte {error.start + 1}"
                self._reject(line, f"invalid UTF-8: {where}", number)
                continue
            except OSError as error:
                self._reject(1, f"cannot be read: {error.strerror}", number)
                continue
            yield [text]


def records(
    piece: InputPiece, columns_of: Sequence[tuple[str, ...]], giant: Callable[[], None]
) -> RecordReader:
    """Return the reader of a piece's documents.

    Args:
        columns_of: for each of its files, the column of each key.
    """
    columns = columns_of[0]
    if piece.kind == "lines" and len(piece.paths) > 1:
        return FilesReader(piece, columns_of)
    if piece.kind == "lines":
        return LineReader(piece, columns, read_lines(piece, giant))
    return ParquetReader(piece, columns) if piece.kind == "rows" else TextReader(piece, columns)
