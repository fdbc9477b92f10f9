"""Reading compressed files, with all that is readable of damaged ones.

A file is a sequence of members (of gzip), streams (of bzip2 and xz) or frames (of zstd), called members here.
After damage, reading continues at the next member that can be decoded.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

READ_BYTES = 1 << 20
# Input decoded at once. A decoder of zstd has no limit for its output, which can be 30,000 times as large
FEED_BYTES = {"gzip": 1 << 16, "bzip2": 1 << 16, "xz": 1 << 16, "zstd": 1 << 13}
# `zstd --long=31`, the most that its format's program writes
ZSTD_WINDOW_BYTES = 1 << 31
MAGIC = {
    "gzip": b"\x1f\x8b\x08",
    "bzip2": b"BZh",
    "xz": b"\xfd7zXZ\x00",
    "zstd": b"\x28\xb5\x2f\xfd",
}
BZIP2_BLOCK = b"1AY&SY"  # how the first block of a bzip2 stream starts, which is only decoded as a whole
# A decoder may notice only after this many bytes that a member has ended early and another follows
NOTICED_WITHIN_BYTES = 1 << 20
# A member found after damage has to be decodable this far
TRIED_BYTES = 1 << 14


@dataclass(frozen=True)
class Damage:
    """What is wrong, and how many bytes of the compressed file could not be read."""

    reason: str
    lost_bytes: int


class _Broken(Exception):
    """Error for data that cannot be decoded."""


class _Member:
    """The decoder of one member. `rest` is input not used yet, after the end what follows the member."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._decoder = _decoder(kind)
        self._errors: tuple[type[Exception], ...] = (
            OSError,
            EOFError,
            ValueError,
            zlib.error,
            lzma.LZMAError,
            *_errors_of(kind),
        )
        self.rest = b""
        self.pending = False

    @property
    def ended(self) -> bool:
        """Return whether the member is complete, with the right checksum."""
        return bool(self._decoder.eof)

    def step(self, data: bytes) -> bytes:
        """Decode some of the data; `pending` says whether to call it again with `rest` first."""
        try:
            out = self._step(data)
        except self._errors as error:
            raise _Broken(" ".join(str(error).split())) from None
        if self.ended:
            self.rest, self.pending = self._decoder.unused_data, False
        return out

    def _step(self, data: bytes) -> bytes:
        decoder = self._decoder
        if self._kind == "zstd":
            return bytes(decoder.decompress(data))
        out = bytes(decoder.decompress(data, READ_BYTES))
        if self._kind == "gzip":
            self.rest = decoder.unconsumed_tail
            self.pending = bool(self.rest) or len(out) == READ_BYTES
        else:
            self.rest, self.pending = b"", not decoder.needs_input
        return out


def _decoder(kind: str) -> Any:
    if kind == "gzip":
        return zlib.decompressobj(31)
    if kind == "bzip2":
        return bz2.BZ2Decompressor()
    if kind == "xz":
        return lzma.LZMADecompressor()
    import zstandard

    return zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES).decompressobj()


def _errors_of(kind: str) -> tuple[type[Exception], ...]:
    """Return what a decoder raises for damaged data."""
    known = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)
    if kind != "zstd":
        return known
    import zstandard

    return (*known, zstandard.ZstdError)


class PackedReader:
    """Reader of a compressed file.

    Attributes:
        position: in the compressed file.
        damage: set if the last `read` returned nothing because of damage; the next may return more.
        ended: whether there is nothing more.
    """

    def __init__(self, packed: IO[bytes], kind: str, size: int) -> None:
        self._packed, self._kind, self._size = packed, kind, size
        self.position = 0
        self.damage: Damage | None = None
        self.ended = False
        self._blocks = self._decode()

    def read(self) -> bytes:
        """Return the next block of at least `READ_BYTES`; less before damage and at the end."""
        self.damage = None
        parts: list[bytes] = []
        count = 0
        while count < READ_BYTES:
            block = next(self._blocks, None)
            if block is None:
                self.ended, self.position = True, self._size
                break
            if isinstance(block, Damage):
                if parts:  # tell it after what comes before it
                    self._blocks = _first(block, self._blocks)
                else:
                    self.damage = block
                break
            parts.append(block)
            count += len(block)
        return b"".join(parts)

    def _decode(self) -> Iterator[bytes | Damage]:
        start = 0
        while (found := self._after_padding(start)) is not None:
            start = found
            member, decoded, at = _Member(self._kind), 0, start
            try:
                for out, at in self._steps(member, start):
                    decoded += len(out)
                    self.position = at
                    if out:
                        yield out
            except _Broken as error:
                yield from self._carefully(start, decoded)
                start, damage = self._after_damage(start, self.position, str(error))
                yield damage
                continue
            if not member.ended:
                start, damage = self._after_damage(start, self._size, "")
                yield damage
                continue
            start = at - len(member.rest)

    def _steps(self, member: _Member, at: int) -> Iterator[tuple[bytes, int]]:
        """Yield decoded blocks of a member, each with the place of the input that has been given to it."""
        feed = FEED_BYTES[self._kind]
        self._packed.seek(at)
        while not member.ended:
            data = self._packed.read(feed)
            if not data:
                return
            at += len(data)
            yield member.step(data), at
            while member.pending:
                yield member.step(member.rest), at

    def _carefully(self, start: int, decoded: int) -> Iterator[bytes]:
        """Yield what a damaged member has beyond the `decoded` bytes, fed byte by byte near the damage.

        A decoder that raises loses what it had decoded in the same call. `position` is then at the damage.
        """
        member, good = _Member(self._kind), self.position if self.position > start else start
        feed, skip = FEED_BYTES[self._kind], decoded
        at = start
        self._packed.seek(start)
        while True:
            data = self._packed.read(feed if at + feed <= good else 1)
            if not data:
                return
            first = True
            while first or member.pending:
                try:
                    out = member.step(data if first else member.rest)
                except _Broken:
                    self.position = at
                    return
                first = False
                if len(out) > skip:
                    yield out[skip:]
                skip -= min(skip, len(out))
            at += len(data)

    def _after_padding(self, at: int) -> int | None:
        """Return where the next member starts, after zeros that fill up a block; None at the end."""
        self._packed.seek(at)
        while data := self._packed.read(READ_BYTES):
            filled = data.lstrip(b"\0")
            if filled:
                return at + len(data) - len(filled)
            at += len(data)
        return None

    def _after_damage(self, start: int, at: int, why: str) -> tuple[int, Damage]:
        """Return where reading continues after damage at `at` in a member, and what to say about it."""
        following = self._next_member(max(start + 1, at - NOTICED_WITHIN_BYTES))
        end = self._size if following is None else following
        lost = max(end - at, 0)
        if not why:
            reason = (
                f"truncated {self._kind} file: its {self._size:,} bytes end before its compressed data do"
            )
        elif at <= start + len(MAGIC[self._kind]) and not self._is_member(start):
            lost = end - start
            reason = self._not_packed(start, lost)
        else:
            reason = (
                f"damaged {self._kind} file: {why} at byte {at:,}, {lost:,} of {self._size:,} bytes are lost"
            )
        if following is not None:
            reason += f"; reading continues at byte {following:,}"
        return end, Damage(reason, lost)

    def _not_packed(self, start: int, lost: int) -> str:
        self._packed.seek(start)
        head = self._packed.read(12)
        if start:
            what = f"{lost:,} bytes after the end of its data are something else, {head!r}"
            return f"damaged {self._kind} file: {what}"
        if head.lstrip()[:1] in (b"{", b"["):
            return (
                f"not a {self._kind} file but plain JSON: rename it without the ending of a compressed file"
            )
        other = next((kind for kind, magic in MAGIC.items() if head.startswith(magic)), None)
        what = f"a {other} file: give it that ending" if other else f"something that starts with {head!r}"
        return f"not a {self._kind} file but {what}"

    def _is_member(self, at: int) -> bool:
        self._packed.seek(at)
        return self._packed.read(len(MAGIC[self._kind])) == MAGIC[self._kind]

    def _next_member(self, at: int) -> int | None:
        """Return where the first member at or after `at` starts that can be decoded; None if there is none."""
        magic = MAGIC[self._kind]
        for place in _places(self._packed, magic, at):
            if self._can_be_decoded(place):
                return place
        return None

    def _can_be_decoded(self, at: int) -> bool:
        member = _Member(self._kind)
        self._packed.seek(at)
        data = self._packed.read(TRIED_BYTES)
        try:
            out = member.step(data)
        except _Broken:
            return False
        return bool(out) or member.ended or data[4:10] == BZIP2_BLOCK


def _first(block: bytes | Damage, others: Iterator[bytes | Damage]) -> Iterator[bytes | Damage]:
    yield block
    yield from others


def _places(file: IO[bytes], what: bytes, at: int) -> Iterator[int]:
    """Yield the places of some bytes in a file, from `at` on."""
    while True:
        file.seek(at)
        data = file.read(READ_BYTES)
        found = data.find(what)
        while found >= 0:
            yield at + found
            found = data.find(what, found + 1)
        if len(data) < READ_BYTES:
            return
        at += len(data) - len(what) + 1
