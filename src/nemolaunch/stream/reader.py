"""A reader: its share of every source, mixed, tokenised, and packed into samples of equal length.

The rows of a stream are dealt to a fixed number of readers, whatever the number of processes. A reader is a
function of its own small state and needs nothing from the others. So a stream can be resumed by any number of
data-parallel ranks and workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nemolaunch.errors import NemolaunchError
from nemolaunch.stream.cursor import Cursor, Drawn, Empty, Exhausted, Rules
from nemolaunch.stream.holdout import HeldOut
from nemolaunch.stream.manifest import Manifest
from nemolaunch.stream.mixing import Mixer
from nemolaunch.stream.order import Array
from nemolaunch.stream.state import Mix, ReaderState, SourceState, reweighted

# Rows chosen and encoded at once; a resumed reader encodes at most this many again.
BLOCK_ROWS = 64
# Of text, before any row of a source was encoded.
TOKENS_PER_CHAR = 0.25
# Flags of a row that was fed: it begins or ends in the sample. Of one that was skipped: that it was, and that
# the rest of its group was too.
BEGINS, ENDS, REJECTED, DAMAGED = 1, 2, 4, 8
FED = np.dtype(
    [("source", "u2"), ("epoch", "u2"), ("file", "u4"), ("group", "u4"), ("row", "u4"), ("tokens", "u4"),
     ("flags", "u1")]
)  # fmt: skip

Encode = Callable[[Sequence[Sequence[str]]], list[Array]]


@dataclass(frozen=True, kw_only=True)
class StreamSetup:
    """Setup shared by all readers of a stream.

    Attributes:
        windows: rows in a window of each source.
        mixes: how sources were and are mixed, the current mix last.
        seq_length: tokens of a sample that the model sees; a sample has one more.
    """

    manifest: Manifest
    rules: Rules
    windows: tuple[int, ...]
    held_out: tuple[HeldOut, ...]
    mixes: tuple[Mix, ...]
    seq_length: int

    @property
    def mix(self) -> Mix:
        """Return the current mix."""
        return self.mixes[-1]


@dataclass(frozen=True)
class Sample:
    """One packed sample.

    Attributes:
        tokens: int32 [seq_length + 1]; the last is the first of the reader's next sample.
        number: unique in the run, over all readers.
        state: of the reader after it, packed.
        fed: rows that its first seq_length tokens come from, and skipped rows without text, of type FED.
        once: whether the reader has reached the end of every source at least once.
    """

    tokens: Array
    number: int
    state: Array
    fed: Array
    once: bool


@dataclass
class _Row:
    """A row with its ids and its place in the block that starts at `block`."""

    source: int
    drawn: Drawn
    block: tuple[SourceState, ...]
    mix: int
    place: int
    rejects: list[tuple[int, Drawn]]
    ids: Array


class Reader:
    """Iterator over the samples of one reader from a state on. It ends only if a source must not repeat."""

    def __init__(
        self, setup: StreamSetup, number: int, encode: Encode, state: ReaderState | None = None
    ) -> None:
        self.number = number
        self._setup, self._encode = setup, encode
        self._state = state or ReaderState((SourceState(),) * len(setup.mix.shares), mix=len(setup.mixes) - 1)
        self._mix = self._state.mix
        self._mixer = Mixer(setup.mixes[self._mix], number)
        self._sources = list(self._state.sources)
        self._cursors = [
            Cursor(listed, setup.rules, number, window, held_out, source.position)
            for listed, window, held_out, source in zip(
                setup.manifest.sources, setup.windows, setup.held_out, self._sources, strict=True
            )
        ]
        self._fed = [(source.fed_rows, source.fed_tokens) for source in self._sources]
        self._empty: set[int] = set()
        self._ended = False

    def __iter__(self) -> Iterator[Sample]:
        length = self._setup.seq_length
        rows: deque[_Row] = deque(self._block()[self._state.row :])
        available = sum(len(row.ids) for row in rows) - self._state.offset
        offset, samples = self._state.offset, self._state.samples
        while True:
            while available <= length:
                if self._ended:
                    return
                block = self._block()
                rows.extend(block)
                available += sum(len(row.ids) for row in block)
            tokens = np.empty(length + 1, np.int32)
            fed, offset = _take(rows, offset, tokens[:-1])
            available -= length
            tokens[-1] = rows[0].ids[offset]
            samples += 1
            self._count_fed(fed)
            state = ReaderState(self._with_fed(rows[0].block), samples, rows[0].place, offset, rows[0].mix)
            yield Sample(
                tokens=tokens,
                number=(samples - 1) * self._setup.rules.readers + self.number,
                state=state.pack(),
                fed=np.array(fed, FED),
                once=self._once(rows[0].block),
            )

    def _count_fed(self, fed: Sequence[tuple[Any, ...]]) -> None:
        for source, *_, tokens, flags in fed:
            before = self._fed[source]
            self._fed[source] = (before[0] + bool(flags & BEGINS), before[1] + tokens)

    def _with_fed(self, sources: Sequence[SourceState]) -> tuple[SourceState, ...]:
        return tuple(
            replace(source, fed_rows=rows, fed_tokens=tokens)
            for source, (rows, tokens) in zip(sources, self._fed, strict=True)
        )

    def _once(self, sources: Sequence[SourceState]) -> bool:
        return all(
            s.position.epoch for s, share in zip(sources, self._setup.mix.shares, strict=True) if share > 0
        )

    def _block(self) -> list[_Row]:
        """Return the next rows, encoded."""
        begin = tuple(self._sources)
        counts = [self._count(source) for source in begin]
        tokens_per_char = [
            source.tokens / source.chars if source.chars else TOKENS_PER_CHAR for source in begin
        ]
        drawn: list[tuple[int, Drawn, list[tuple[int, Drawn]]]] = []
        rejects: list[tuple[int, Drawn]] = []
        while len(drawn) < BLOCK_ROWS and not self._ended:
            source = self._mixer.choose(counts, self._empty)
            if source is None:
                raise NemolaunchError(self._too_few_rows())
            try:
                row, bad = self._cursors[source].draw()
            except Exhausted:
                self._ended = True
                continue
            except Empty:
                self._empty.add(source)
                continue
            rejects += [(source, reject) for reject in bad]
            drawn.append((source, row, rejects))
            rejects = []
            counts[source] += tokens_per_char[source] * _chars(row) if self._mixer.by_tokens else 1
        encoded = self._encode([row.texts for _, row, _ in drawn])
        for (source, row, _), ids in zip(drawn, encoded, strict=True):
            s = self._sources[source]
            self._sources[source] = replace(
                s, rows=s.rows + 1, tokens=s.tokens + len(ids), chars=s.chars + _chars(row)
            )
        for source, cursor in enumerate(self._cursors):
            cursor.resize(self._setup.windows[source])
            self._sources[source] = replace(self._sources[source], position=cursor.position)
        mix = self._mix
        if mix < len(self._setup.mixes) - 1:
            self._mix = len(self._setup.mixes) - 1
            self._mixer = Mixer(self._setup.mix, self.number)
            self._sources = [reweighted(source) for source in self._sources]
        return [
            _Row(source, row._replace(texts=()), begin, mix, place, bad, ids)
            for place, ((source, row, bad), ids) in enumerate(zip(drawn, encoded, strict=True))
        ]

    def _count(self, source: SourceState) -> float:
        if self._mixer.by_tokens:
            return source.tokens - source.tokens_before
        return source.rows - source.rows_before

    def _too_few_rows(self) -> str:
        readers = self._setup.rules.readers
        return (
            f"reader {self.number + 1} of {readers} finds no rows: the sources have fewer rows than there "
            "are readers; use a lower --stream-readers"
            if not self._setup.rules.validation
            else "no row of the sources is held out for validation"
        )


def _chars(row: Drawn) -> int:
    return sum(map(len, row.texts))


def _take(rows: deque[_Row], offset: int, out: Array) -> tuple[list[tuple[Any, ...]], int]:
    """Fill `out` with the next ids, from `offset` in the first row on.

    Returns the rows they come from, and the offset of the next id in what is then the first row.
    """
    fed: list[tuple[Any, ...]] = []
    filled = 0
    while filled < len(out) or offset == len(rows[0].ids):
        row = rows[0]
        count = min(len(row.ids) - offset, len(out) - filled)
        out[filled : filled + count] = row.ids[offset : offset + count]
        filled += count
        if offset == 0:
            fed += [_named(source, bad, 0, REJECTED + bad.damage * DAMAGED) for source, bad in row.rejects]
        ends = offset + count == len(row.ids)
        fed.append(_named(row.source, row.drawn, count, (offset == 0) * BEGINS + ends * ENDS))
        offset += count
        if ends:
            rows.popleft()
            offset = 0
    return fed, offset


def _named(source: int, row: Drawn, tokens: int, flags: int) -> tuple[Any, ...]:
    return (source, row.epoch, row.file, row.group, row.row, tokens, flags)
