"""Rows of one file by group: row groups of parquet, blocks of bytes of JSON Lines, else the whole file.

A group can be read without what comes before it. A row is identified by its group and its place there.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Protocol

import numpy as np

from nemolaunch.data.stream_spec import REMOTE, StreamSource
from nemolaunch.errors import NemolaunchError
from nemolaunch.stream import hub
from nemolaunch.stream.manifest import File
from nemolaunch.stream.order import FileShare, in_share
from nemolaunch.tokenization.pieces import InputPiece, Unpacker
from nemolaunch.tokenization.records import (
    Block,
    LineReader,
    Value,
    checked_value,
    column_of,
    column_values,
    has_column,
    read_lines,
    value_of,
)
from nemolaunch.tokenization.sources import InputFile

Array = np.ndarray[Any, Any]

BLOCK_BYTES = 4 << 20
BATCH_ROWS = 512


class Missing(NemolaunchError):
    """Error for a file that is missing, cannot be reached, or has changed. Its rows must not be skipped."""


class Damaged(NemolaunchError):
    """Error for data that exist but cannot be decoded: a whole file, or the rest of a group."""


def _bad(what: str, error: Exception) -> NemolaunchError:
    """Classify an exception of a reader: a lost connection and a failing disk are not damage."""
    from requests import RequestException

    reason = " ".join(str(error).split())[:300] or type(error).__name__
    gone = isinstance(error, (RequestException, ConnectionError, TimeoutError))
    if gone or (isinstance(error, OSError) and error.errno is not None):
        return Missing(f"{what} cannot be read: {reason}")
    return Damaged(f"{what} is damaged: {reason}")


@dataclass(frozen=True)
class Row:
    """One row: `place` in its group, and its texts, or why it has none."""

    place: int
    texts: tuple[str, ...]
    reason: str = ""


# Which rows of a group to read: (group, places [n]) → True or False [n]. None: all.
Wanted = Callable[[int, Array], Array] | None


class FileRows(Protocol):
    """An open file with `num_groups` groups of rows."""

    num_groups: int

    def read(self, share: FileShare, wanted: Wanted, skip: int) -> Iterator[Row]:
        """Yield the wanted rows of a share of a group, without the first `skip` of them.

        Raises Damaged after all rows before the damage, or Missing.
        """

    def counts(self) -> list[int] | None:
        """Return the number of rows in each group, if it is known without reading them; else None."""

    def close(self) -> None:
        """Close the file."""


def open_rows(source: StreamSource, file: File) -> FileRows:
    """Open a file of a source.

    Raises Missing if it is gone, has another size, or lacks the column; Damaged if its content is not of its
    kind.
    """
    if file.kind == "dataset":
        return _Shard(source, int(file.path))
    if not file.path.startswith(REMOTE):
        _check_size(source, file)
    if file.kind == "parquet":
        return _Parquet(source, file)
    if file.kind == "jsonl" and not file.path.startswith(REMOTE):
        return _Blocks(source, file)
    return _Whole(source, file)


def _open(file: File) -> IO[bytes]:
    if file.path.startswith(REMOTE):
        return hub.open_file(file.path, file.size)
    return open(file.path, "rb")


def _check_size(source: StreamSource, file: File) -> None:
    try:
        size = os.path.getsize(file.path)
    except OSError as error:
        raise Missing(
            f"source {source.name}: {file.path}: {error.strerror}; it had {file.size:,} bytes when the run "
            "started"
        ) from None
    if size != file.size:
        raise Missing(
            f"source {source.name}: {file.path} has {size:,} bytes, not the {file.size:,} it had when the run "
            "started"
        )


class _Parquet:
    def __init__(self, source: StreamSource, file: File) -> None:
        import pyarrow.parquet as pq

        self._what = f"source {source.name}: {file.path}"
        self._column = source.text_key
        try:
            self._file = pq.ParquetFile(_open(file), pre_buffer=file.path.startswith(REMOTE))
        except (OSError, ValueError) as error:
            raise _bad(self._what, error) from None
        names = self._file.schema_arrow.names
        if not has_column(self._file.schema_arrow, source.text_key):
            raise Missing(f"{self._what} has no column {source.text_key!r}; it has {', '.join(names)}")
        self.num_groups = self._file.num_row_groups

    def read(self, share: FileShare, wanted: Wanted, skip: int) -> Iterator[Row]:
        first = 0
        try:
            batches = self._file.iter_batches(
                BATCH_ROWS, row_groups=[share.file], columns=[self._column], use_threads=False
            )
            for batch in batches:
                places = np.arange(first, first + batch.num_rows)
                first += batch.num_rows
                chosen = in_share(places, share)
                if wanted:
                    chosen &= wanted(share.file, places)
                mine = np.flatnonzero(chosen)
                skipped, mine = mine[:skip], mine[skip:]
                skip -= len(skipped)
                if len(mine) < batch.num_rows:
                    batch = batch.take(mine)
                values = column_values(column_of(batch, self._column))
                for place, value in zip(places[mine].tolist(), values, strict=True):
                    yield _row(place, value, self._column)
        except (OSError, ValueError) as error:
            raise _bad(f"{self._what}, row group {share.file},", error) from None

    def counts(self) -> list[int] | None:
        return [self._file.metadata.row_group(g).num_rows for g in range(self.num_groups)]

    def close(self) -> None:
        self._file.close(force=True)


def _row(place: int, value: Any, column: str) -> Row:
    try:
        return _of_value(place, checked_value(value, column))
    except ValueError as error:
        return Row(place, (), str(error))


def _records(batch: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a batch of columns."""
    for values in zip(*batch.values(), strict=True):
        yield dict(zip(batch, values, strict=True))


def _row_of(record: dict[str, Any], column: str) -> Row:
    try:
        return _of_value(0, value_of(record, column))
    except ValueError as error:
        return Row(0, (), str(error))


def _of_value(place: int, value: Value) -> Row:
    texts = (value,) if isinstance(value, str) else tuple(value)
    return Row(place, texts) if any(texts) else Row(place, (), "the text is empty")


class _Blocks:
    """JSON Lines that can be read from any byte."""

    def __init__(self, source: StreamSource, file: File) -> None:
        self._source, self._file = source, file
        self.num_groups = max(1, -(-file.size // BLOCK_BYTES))

    def read(self, share: FileShare, wanted: Wanted, skip: int) -> Iterator[Row]:
        start = share.file * BLOCK_BYTES
        part = _part(self._file, start, min(start + BLOCK_BYTES, self._file.size))
        try:
            block = read_lines(part, lambda: None)
        except OSError as error:
            raise _bad(f"source {self._source.name}: {self._file.path}", error) from None
        rows = _of_lines(LineReader(part, (self._source.text_key,), block), 0)
        yield from _chosen(rows, share, wanted, skip)

    def counts(self) -> list[int] | None:
        return None

    def close(self) -> None:
        pass


def _part(file: File, start: int, stop: int) -> InputPiece:
    return InputPiece(0, 0, "lines", (file.path,), start, stop, stop - start)


def _of_lines(lines: LineReader, before: int) -> Iterator[Row]:
    """Yield lines as rows, after `before` others in the group. Blank lines are not rows."""
    told = 0
    for (value,) in lines:
        for reject in lines.rejects[told:]:
            yield Row(before + reject.line - 1, (), reject.reason)
        told = len(lines.rejects)
        yield _of_value(before + lines.count - 1, value)
    for reject in lines.rejects[told:]:
        yield Row(before + reject.line - 1, (), reject.reason)


def _chosen(rows: Iterator[Row], share: FileShare, wanted: Wanted, skip: int) -> Iterator[Row]:
    group, of, mine = share.file, share.of, share.share
    for row in rows:
        if of > 1 and (row.place + group) % of != mine:
            continue
        if wanted and not wanted(group, np.array([row.place]))[0]:
            continue
        if skip:
            skip -= 1
        else:
            yield row


class _Whole:
    """A file that can only be read from its start: compressed, or one text. It is one group."""

    num_groups = 1

    def __init__(self, source: StreamSource, file: File) -> None:
        self._source, self._file = source, file

    def read(self, share: FileShare, wanted: Wanted, skip: int) -> Iterator[Row]:
        rows = self._text() if self._file.kind == "text" else self._lines()
        try:
            yield from _chosen(rows, share, wanted, skip)
        except (OSError, ValueError) as error:
            raise _bad(f"source {self._source.name}: {self._file.path}", error) from None

    def _text(self) -> Iterator[Row]:
        with _open(self._file) as opened:
            data = opened.read()
        try:
            yield _of_value(0, data.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            yield Row(0, (), f"invalid UTF-8 at byte {error.start + 1}")

    def _lines(self) -> Iterator[Row]:
        before, damage = 0, ""
        with _open(self._file) as opened:
            unpacker = Unpacker(opened, InputFile(self._file.path, self._file.kind, self._file.size, 0))
            while not unpacker.ended:
                out = io.BytesIO()
                unpacker.copy_lines(out, BLOCK_BYTES)
                data = out.getvalue()
                part = _part(self._file, 0 if before == 0 else 1, len(data))
                lines = LineReader(part, (self._source.text_key,), Block(data, 0, len(data)))
                yield from _of_lines(lines, before)
                before += lines.count
                if unpacker.damage:
                    damage = damage or unpacker.damage.reason
        if damage:  # the rows behind it are read first
            raise Damaged(f"source {self._source.name}: {self._file.path}: {damage}")

    def counts(self) -> list[int] | None:
        return None

    def close(self) -> None:
        pass


class _Shard:
    """One shard of a dataset of the `datasets` library."""

    num_groups = 1

    def __init__(self, source: StreamSource, number: int) -> None:
        self._source, self._number = source, number

    def read(self, share: FileShare, wanted: Wanted, skip: int) -> Iterator[Row]:
        from nemolaunch.stream.datasets import shard

        column = self._source.text_key
        try:
            batches = shard(self._source, self._number).iter(BATCH_ROWS)
            rows = (_row_of(record, column) for batch in batches for record in _records(batch))
            numbered = (Row(place, row.texts, row.reason) for place, row in enumerate(rows))
            yield from _chosen(numbered, share, wanted, skip)
        except NemolaunchError:
            raise
        except Exception as error:  # the library raises whatever its readers raise
            raise _bad(
                f"source {self._source.name}: shard {self._number} of {self._source.where}", error
            ) from None

    def counts(self) -> list[int] | None:
        return None

    def close(self) -> None:
        pass
