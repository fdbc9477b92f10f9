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
HEADER = 3
PER_SOURCE = len(Position._fields) + 4


@dataclass(frozen=True)
class SourceState:
    """One source in one reader.

    Attributes:
        rows, tokens: fed of it since the run began.
        rows_before, tokens_before: of them before the present weights.
    """

    position: Position = field(default_factory=Position)
    rows: int = 0
    tokens: int = 0
    rows_before: int = 0
    tokens_before: int = 0


@dataclass(frozen=True)
class ReaderState:
    """One reader, between two samples.

    Attributes:
        samples: made since the run began.
        row, offset: the next token: its row in the block that begins at `sources`, its place in that row.
        sources: at the beginning of the block.
    """

    sources: tuple[SourceState, ...]
    samples: int = 0
    row: int = 0
    offset: int = 0

    def pack(self) -> Array:
        """As int64 [HEADER + PER_SOURCE * sources]."""
        numbers = [self.samples, self.row, self.offset]
        for s in self.sources:
            numbers += [*s.position, s.rows, s.tokens, s.rows_before, s.tokens_before]
        return np.array(numbers, np.int64)

    @classmethod
    def unpack(cls, numbers: Sequence[int]) -> ReaderState:
        """The state of `pack`."""
        values = [int(n) for n in numbers]
        sources = []
        for start in range(HEADER, len(values), PER_SOURCE):
            *position, rows, tokens, rows_before, tokens_before = values[start : start + PER_SOURCE]
            sources.append(SourceState(Position(*position), rows, tokens, rows_before, tokens_before))
        return cls(tuple(sources), *values[:HEADER])


@dataclass(frozen=True)
class StreamState:
    """All readers of a stream.

    Attributes:
        seed: of its orders.
        digest: of its manifest.
        tokenizer: digest of the tokenizer, on which places within rows depend.
        names, shares, unit: its sources, and how they are mixed.
        readers: one for each.
    """

    seed: int
    digest: str
    tokenizer: str
    names: tuple[str, ...]
    shares: tuple[float, ...]
    unit: str
    readers: tuple[ReaderState, ...]

    def as_values(self) -> dict[str, Any]:
        """For a checkpoint: plain values, and all numbers of the readers as one int64 array."""
        return {
            "format": FORMAT,
            "seed": self.seed,
            "digest": self.digest,
            "tokenizer": self.tokenizer,
            "names": list(self.names),
            "shares": list(self.shares),
            "unit": self.unit,
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
            shares=tuple(float(share) for share in values["shares"]),
            unit=str(values["unit"]),
            readers=tuple(ReaderState.unpack(row) for row in np.asarray(values["readers"])),
        )

    def mixed(self, shares: Sequence[float], unit: str) -> StreamState:
        """The same place with other weights, which count from here on: nothing is made up for."""
        if tuple(shares) == self.shares and unit == self.unit:
            return self
        readers = tuple(replace(r, sources=tuple(map(_from_here, r.sources))) for r in self.readers)
        return replace(self, shares=tuple(shares), unit=unit, readers=readers)

    def totals(self) -> list[tuple[int, int, int]]:
        """Rows and tokens fed of each source, up to the beginning of each reader's block, and the least
        number of epochs that all readers have finished."""
        columns = list(zip(*(reader.sources for reader in self.readers), strict=True))
        return [
            (sum(s.rows for s in c), sum(s.tokens for s in c), min(s.position.epoch for s in c))
            for c in columns
        ]


def _from_here(source: SourceState) -> SourceState:
    return replace(source, rows_before=source.rows, tokens_before=source.tokens)


def beginning(
    *, seed: int, digest: str, tokenizer: str, names: Sequence[str], shares: Sequence[float], unit: str,
    readers: int, samples: int = 0,
) -> StreamState:  # fmt: skip
    """A stream from its first row. `samples`: how many each reader is taken to have made before."""
    one = ReaderState(tuple(SourceState() for _ in names), samples)
    return StreamState(seed, digest, tokenizer, tuple(names), tuple(shares), unit, (one,) * readers)
