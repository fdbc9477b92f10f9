"""Where a stream stands, as a few whole numbers for each reader: what a checkpoint keeps of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nemolaunch.errors import NemolaunchError
from nemolaunch.stream.cursor import Position
from nemolaunch.stream.order import Array

FORMAT = 1
HEADER = 4
PLACE = len(Position._fields)
PER_SOURCE = PLACE + 7


@dataclass(frozen=True)
class SourceState:
    """One source in one reader.

    Attributes:
        rows, tokens, chars: drawn of it up to the present block.
        rows_before, tokens_before: of them before the present weights.
        fed_rows, fed_tokens: rows that began in samples, and tokens in samples.
    """

    position: Position = field(default_factory=Position)
    rows: int = 0
    tokens: int = 0
    chars: int = 0
    rows_before: int = 0
    tokens_before: int = 0
    fed_rows: int = 0
    fed_tokens: int = 0


@dataclass(frozen=True)
class ReaderState:
    """One reader, between two samples.

    Attributes:
        samples: made since the run began.
        row, offset: the next token: its row in the block that begins at `sources`, its place in that row.
        mix: number of the mix of the block; a later one begins with the next block.
        sources: at the beginning of the block.
    """

    sources: tuple[SourceState, ...]
    samples: int = 0
    row: int = 0
    offset: int = 0
    mix: int = 0

    def pack(self) -> Array:
        """As int64 [HEADER + PER_SOURCE * sources]."""
        numbers = [self.samples, self.row, self.offset, self.mix]
        for s in self.sources:
            numbers += [*s.position, s.rows, s.tokens, s.chars, s.rows_before, s.tokens_before]
            numbers += [s.fed_rows, s.fed_tokens]
        return np.array(numbers, np.int64)

    @classmethod
    def unpack(cls, numbers: Sequence[int]) -> ReaderState:
        """The state of `pack`."""
        values = [int(n) for n in numbers]
        sources = []
        for start in range(HEADER, len(values), PER_SOURCE):
            position, rest = values[start : start + PLACE], values[start + PLACE : start + PER_SOURCE]
            sources.append(SourceState(Position(*position), *rest))
        return cls(tuple(sources), *values[:HEADER])


@dataclass(frozen=True)
class Mix:
    """How sources are mixed: shares that sum to 1, of `tokens` or of `rows`."""

    shares: tuple[float, ...]
    unit: str


@dataclass(frozen=True)
class StreamState:
    """All readers of a stream.

    Attributes:
        seed: of its orders.
        digest: of its manifest.
        tokenizer: digest of the tokenizer, on which places within rows depend.
        names: its sources.
        mixes: how they are mixed, the present way last.
        readers: one for each.
    """

    seed: int
    digest: str
    tokenizer: str
    names: tuple[str, ...]
    mixes: tuple[Mix, ...]
    readers: tuple[ReaderState, ...]

    def as_values(self) -> dict[str, Any]:
        """For a checkpoint: plain values, and all numbers of the readers as one int64 array."""
        return {
            "format": FORMAT,
            "seed": self.seed,
            "digest": self.digest,
            "tokenizer": self.tokenizer,
            "names": list(self.names),
            "mixes": [[list(mix.shares), mix.unit] for mix in self.mixes],
            "readers": np.stack([reader.pack() for reader in self.readers]),
        }

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> StreamState:
        """The state of `as_values`. Raises NemolaunchError for another format."""
        if values.get("format") != FORMAT:
            raise NemolaunchError(
                f"the checkpoint's place in the stream has format {values.get('format')}, not {FORMAT}; "
                "--data-resume fresh begins the stream anew"
            )
        return cls(
            seed=int(values["seed"]),
            digest=str(values["digest"]),
            tokenizer=str(values["tokenizer"]),
            names=tuple(values["names"]),
            mixes=tuple(Mix(tuple(map(float, shares)), str(unit)) for shares, unit in values["mixes"]),
            readers=tuple(ReaderState.unpack(row) for row in np.asarray(values["readers"])),
        )

    def with_sources(self, names: Sequence[str]) -> StreamState:
        """The same place with further sources, which are at their first rows. `names` begin with those there are."""
        more = len(names) - len(self.names)
        new = (SourceState(),) * more
        return replace(
            self,
            names=tuple(names),
            mixes=tuple(Mix(mix.shares + (0.0,) * more, mix.unit) for mix in self.mixes),
            readers=tuple(replace(reader, sources=reader.sources + new) for reader in self.readers),
        )

    def mixed(self, mix: Mix) -> StreamState:
        """The same place, from which on sources are mixed in another way."""
        return self if mix == self.mixes[-1] else replace(self, mixes=(*self.mixes, mix))

    def totals(self) -> list[tuple[int, int, int]]:
        """Rows and tokens fed of each source, and how many epochs all readers have finished."""
        columns = list(zip(*(reader.sources for reader in self.readers), strict=True))
        return [
            (sum(s.fed_rows for s in c), sum(s.fed_tokens for s in c), min(s.position.epoch for s in c))
            for c in columns
        ]


def from_here(source: SourceState) -> SourceState:
    """The state from which other weights count: nothing is made up for."""
    return replace(source, rows_before=source.rows, tokens_before=source.tokens)


def beginning(
    *, seed: int, digest: str, tokenizer: str, names: Sequence[str], mix: Mix, readers: int, samples: int = 0
) -> StreamState:
    """A stream from its first row. `samples`: how many each reader is taken to have made before."""
    one = ReaderState(tuple(SourceState() for _ in names), samples)
    return StreamState(seed, digest, tokenizer, tuple(names), (mix,), (one,) * readers)
