"""Bzip2 files of many streams, as in Wikimedia's dumps: a header, a hundred pages per stream, a footer."""

from __future__ import annotations

import bz2
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

# "BZh", the block size, and the first block's magic number: occurs by chance once in 2**76 bytes.
START = re.compile(rb"BZh[1-9]1AY&SY")
START_BYTES = 10


@dataclass(frozen=True)
class Bz2Stream:
    """One compressed stream and its offset in the file."""

    offset: int
    data: bytes

    @property
    def end(self) -> int:
        """Return the offset of the byte after it."""
        return self.offset + len(self.data)


def split(chunks: Iterable[bytes]) -> Iterator[Bz2Stream]:
    """Yield the streams of a file that arrives in chunks. Bytes before the first one are skipped."""
    buffer, offset, searched, begun = b"", 0, 0, False
    for chunk in chunks:
        buffer += chunk
        begin = 0
        for match in START.finditer(buffer, searched):
            if begun and match.start() > begin:
                yield Bz2Stream(offset + begin, buffer[begin : match.start()])
            begin, begun = match.start(), True
        if not begun:
            begin = max(0, len(buffer) - START_BYTES + 1)
        offset += begin
        buffer = buffer[begin:]
        searched = max(1, len(buffer) - START_BYTES + 1) if begun else 0
    if begun and buffer:
        yield Bz2Stream(offset, buffer)


def unpack(stream: Bz2Stream) -> bytes:
    """Decompress a stream. Raises ValueError with the reason if it is damaged or truncated."""
    unpacker = bz2.BZ2Decompressor()
    try:
        content = unpacker.decompress(stream.data)
    except OSError as error:
        raise ValueError(f"damaged bzip2 data ({error})") from None
    if not unpacker.eof:
        raise ValueError("the bzip2 data are truncated")
    if unpacker.unused_data.strip(b"\0"):
        raise ValueError("the bzip2 data are followed by other data")
    return content
