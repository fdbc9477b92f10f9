"""The position of a stream, a few integers per reader, which checkpoints keep."""

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
    """Position of one reader in one source.

    Attributes:
        rows, tokens, chars: drawn from it up to the current block.
        rows_before, tokens_before: those drawn before the current weights.
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
    """Position of one reader, between two samples.

    Attributes:
        samples: made since the start of the run.
        row, offset: of the next token: its row in the block that starts at `sources`, its place in that row.
        mix: number of the block's mix; a later one takes effect with the next block.
        sources: their positions at the start of the block.
    """

    sources: tuple[SourceState, ...]
    samples: int = 0
    row: int = 0
    offset: int = 0
    mix: int = 0

    def pack(self) -> Array:
        """Return the state as int64 [HEADER + PER_SOURCE * sources]."""
        numbers = [self.samples, self.row, self.offset, self.mix]
        for s in self.sources:
            numbers += [*s.position, s.rows, s.tokens, s.chars, s.rows_before, s.tokens_before]
            numbers += [s.fed_rows, s.fed_tokens]
        return np.array(numbers, np.int64)

    @classmethod
    def unpack(cls, numbers: Sequence[int]) -> ReaderState:
        """Return the state that `pack` was called on."""
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
    """Position of all readers of a stream.

    Attributes:
        seed: of its orders.
        digest: of its manifest.
        tokenizer: digest of the tokenizer, on which positions within rows depend.
        names: of its sources.
        mixes: how they were and are mixed, the current mix last.
        readers: one state for each.
    """

    seed: int
    digest: str
    tokenizer: str
    names: tuple[str, ...]
    mixes: tuple[Mix, ...]
    readers: tuple[ReaderState, ...]

    def as_values(self) -> dict[str, Any]:
        """Return the state for a checkpoint: plain values, and the readers' numbers as one int64 array."""
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
        """Return the state that `as_values` was called on. Raises NemolaunchError for another format."""
        if values.get("format") != FORMAT:
            raise NemolaunchError(
                f"the checkpoint's position in the stream has format {values.get('format')}, not {FORMAT}; "
                "--data-resume fresh starts the stream over"
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
        """Return the same position with new sources, at their first rows. `names` start with the old ones."""
        more = len(names) - len(self.names)
        new = (SourceState(),) * more
        return replace(
            self,
            names=tuple(names),
            mixes=tuple(Mix(mix.shares + (0.0,) * more, mix.unit) for mix in self.mixes),
            readers=tuple(replace(reader, sources=reader.sources + new) for reader in self.readers),
        )

    def mixed(self, mix: Mix) -> StreamState:
        """Return the same position, from which on sources are mixed in another way."""
        return self if mix == self.mixes[-1] else replace(self, mixes=(*self.mixes, mix))

    def totals(self) -> list[tuple[int, int, int]]:
        """Return rows and tokens fed from each source, and the epochs that all readers have finished."""
        columns = list(zip(*(reader.sources for reader in self.readers), strict=True))
        return [
            (sum(s.fed_rows for s in c), sum(s.fed_tokens for s in c), min(s.position.epoch for s in c))
            for c in columns
        ]


def reweighted(source: SourceState) -> SourceState:
    """Return the state from which new weights count: earlier differences are not compensated."""
    return replace(source, rows_before=source.rows, tokens_before=source.tokens)


def initial_state(
    *, seed: int, digest: str, tokenizer: str, names: Sequence[str], mix: Mix, readers: int, samples: int = 0
) -> StreamState:
    """Return a stream at its first row. `samples`: how many each reader counts as made before."""
    one = ReaderState(tuple(SourceState() for _ in names), samples)
    return StreamState(seed, digest, tokenizer, tuple(names), (mix,), (one,) * readers)
