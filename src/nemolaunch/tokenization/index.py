r"""Megatron's `.idx` format, written and read in bounded memory.

Layout, little-endian: `MMIDIDX\0\0`, u64 version 1, u8 dtype code, u64 sequences S, u64 document entries D,
S int32 lengths (tokens), S int64 byte offsets into the `.bin`, D int64 document starts (sequence numbers,
the last one is S). Source: megatron-core's `indexed_dataset.py`, `_IndexWriter`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from nemolaunch.data.index import HEADER, MAGIC
from nemolaunch.errors import NemolaunchError
from nemolaunch.system.atomic_files import atomic_file

if TYPE_CHECKING:
    import numpy as np

# megatron-core's DType: only these two are written for text.
CODES = {"uint16": 8, "int32": 4}
NAMES = {code: name for name, code in CODES.items()}
ITEM_BYTES = {"uint16": 2, "int32": 4}
# megatron-core's DType.optimal_dtype: uint16 below this vocabulary size.
UINT16_BELOW = 65_500
BLOCK = 1 << 20  # entries held at a time


def dtype_for(vocab_size: int) -> str:
    """Return the `.bin`'s number type for a vocabulary, as megatron-core chooses it."""
    return "uint16" if vocab_size < UINT16_BELOW else "int32"


@dataclass(frozen=True)
class Header:
    """Content of the first 34 bytes of an `.idx`. `documents` is one less than the entries stored."""

    dtype: str
    sequences: int
    documents: int

    @property
    def lengths_at(self) -> int:
        """Return the byte where the lengths start."""
        return HEADER.size

    @property
    def pointers_at(self) -> int:
        """Return the byte where the byte offsets start."""
        return HEADER.size + 4 * self.sequences

    @property
    def documents_at(self) -> int:
        """Return the byte where the document starts are stored."""
        return HEADER.size + 12 * self.sequences

    @property
    def size(self) -> int:
        """Return the bytes that the complete file has."""
        return self.documents_at + 8 * (self.documents + 1)


def read_header(path: Path) -> Header:
    """Read the header of an `.idx`. Raises NemolaunchError if it is not an index or is truncated."""
    try:
        with open(path, "rb") as file:
            data = file.read(HEADER.size)
    except OSError as error:
        raise NemolaunchError(f"cannot read {path}: {error.strerror}") from None
    if len(data) < HEADER.size:
        raise NemolaunchError(
            f"{path} is not an index: it has {len(data)} bytes, an .idx header alone has {HEADER.size}"
        )
    magic, version, code, sequences, entries = HEADER.unpack(data)
    if magic != MAGIC or version != 1:
        raise NemolaunchError(
            f"{path} is not an index: it starts with {data[:17]!r}, not with MMIDIDX version 1"
        )
    if code not in NAMES:
        raise NemolaunchError(f"{path}: dtype code {code} at byte 17; text has one of {NAMES}")
    if entries < 1:
        raise NemolaunchError(f"{path}: 0 document entries at byte 26; there is always at least one")
    return Header(NAMES[code], sequences, entries - 1)


def write_index(path: Path, dtype: str, lengths: Path, per_document: Path) -> Header:
    """Write an `.idx` from two raw int32 files: tokens of each sequence, and sequences of each document.

    It holds a few blocks in memory, however many documents there are.
    """
    header = Header(dtype, lengths.stat().st_size // 4, per_document.stat().st_size // 4)
    with atomic_file(path) as out:
        out.write(HEADER.pack(MAGIC, 1, CODES[dtype], header.sequences, header.documents + 1))
        for block in blocks(lengths):
            out.write(block.tobytes())
        _write_starts(out, lengths, ITEM_BYTES[dtype])
        _write_starts(out, per_document, 1)
        out.write(struct.pack("<q", header.sequences))
    return header


def _write_starts(out: IO[bytes], counts: Path, unit: int) -> None:
    """Write int64 running totals before each count, times `unit`."""
    import numpy as np

    total = 0
    for block in blocks(counts):
        ends = np.cumsum(block, dtype=np.int64) * unit
        starts = np.empty_like(ends)
        starts[0] = 0
        starts[1:] = ends[:-1]
        out.write((starts + total).tobytes())
        total += int(ends[-1])


def blocks(path: Path) -> Iterator[np.ndarray[Any, Any]]:
    """Yield the int32 numbers of a raw file, a block at a time."""
    import numpy as np

    with open(path, "rb") as file:
        while data := file.read(4 * BLOCK):
            yield np.frombuffer(data, np.int32)


@dataclass(frozen=True)
class Index:
    """An `.idx` mapped into memory: `lengths` int32 [S], `pointers` int64 [S], `documents` int64 [D+1]."""

    path: Path
    header: Header
    lengths: np.ndarray[Any, Any]
    pointers: np.ndarray[Any, Any]
    documents: np.ndarray[Any, Any]


def read_index(path: Path) -> Index:
    """Map an `.idx` into memory. Raises NemolaunchError if its size does not match its header."""
    import numpy as np

    header = read_header(path)
    size = os.path.getsize(path)
    if size != header.size:
        raise NemolaunchError(
            f"{path} has {size} bytes; {header.sequences} sequences and {header.documents}"
            f" documents need {header.size}"
        )
    data = np.memmap(path, np.uint8, "r")

    def part(start: int, kind: type, count: int) -> np.ndarray[Any, Any]:
        return np.frombuffer(data, kind, count, start)

    return Index(
        path,
        header,
        part(header.lengths_at, np.int32, header.sequences),
        part(header.pointers_at, np.int64, header.sequences),
        part(header.documents_at, np.int64, header.documents + 1),
    )
