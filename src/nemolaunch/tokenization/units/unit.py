"""A unit of work, and how an input is divided into units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from nemolaunch.tokenization.pieces import WHOLE, Range, num_row_groups
from nemolaunch.tokenization.request import TokenizeRequest
from nemolaunch.tokenization.sources import InputFile

# Large enough that starting a unit costs nothing, small enough that losing one does not either.
UNIT_BYTES = 256 << 20
MIN_UNIT_BYTES = 4 << 20
MOST_FILES = 16_384
SPLITTABLE = ("jsonl", "parquet")


@dataclass(frozen=True)
class Unit:
    """Consecutive input: a range of one file, or some whole files.

    Attributes:
        number: its place in the output.
        size: bytes of input, for progress; 0 if they are only hashed.
        places: the places of its files among all sources.
        sources: its files, by absolute paths.
        ranges: which part of each.
        columns: for each, the column of each key.
        only_hash: the files are not tokenised but hashed as a whole: each is divided among several units.
    """

    number: int
    size: int
    places: tuple[int, ...]
    sources: tuple[InputFile, ...]
    ranges: tuple[Range, ...]
    columns: tuple[tuple[str, ...], ...]
    only_hash: bool = False

    @property
    def is_part(self) -> bool:
        """Return whether it is only a part of its file."""
        return self.ranges[0] != WHOLE

    @property
    def name(self) -> str:
        """Return the name of the folder with its result."""
        return f"{self.number:08d}"

    def __str__(self) -> str:
        first = self.sources[0].path
        if self.is_part:
            what = "bytes" if self.sources[0].kind == "jsonl" else "row groups"
            return f"{first} ({what} {self.ranges[0][0]:,} to {self.ranges[0][1]:,})"
        return first if len(self.sources) == 1 else f"{first} and {len(self.sources) - 1:,} more files"


def divide(request: TokenizeRequest, unit_bytes: int) -> list[Unit]:
    """Return the units of a request, in the order of the output. The same sources give the same units."""
    units: list[Unit] = []
    bundle: list[int] = []
    split: list[int] = []
    size = 0

    def add(places: list[int], wanted: Range, size: int, *, only_hash: bool = False) -> None:
        units.append(
            Unit(
                number=len(units),
                size=size,
                places=tuple(places),
                sources=tuple(replace(request.sources[i], path=request.paths[i]) for i in places),
                ranges=(wanted,) * len(places),
                columns=tuple(request.columns[place] for place in places),
                only_hash=only_hash,
            )
        )

    for place in _in_order(request.sources):
        source = request.sources[place]
        parts = _parts(source, unit_bytes)
        if bundle and (parts or size >= unit_bytes or len(bundle) >= MOST_FILES):
            add(bundle, WHOLE, size)
            bundle, size = [], 0
        for i, part in enumerate(parts):
            add([place], part, source.size * (i + 1) // len(parts) - source.size * i // len(parts))
        if parts:
            split.append(place)
        else:
            bundle.append(place)
            size += source.size
    if bundle:
        add(bundle, WHOLE, size)
    for place in split:
        add([place], WHOLE, 0, only_hash=True)
    return units


def _in_order(sources: list[InputFile]) -> Iterator[int]:
    """Yield the places of the sources in the order of the output, where text files come last."""
    yield from (place for place, source in enumerate(sources) if source.kind != "text")
    yield from (place for place, source in enumerate(sources) if source.kind == "text")


def _parts(source: InputFile, unit_bytes: int) -> list[Range]:
    """Return the parts into which a file is divided, about equally large; none if it stays whole."""
    num_parts, size = -(-source.size // unit_bytes), source.size
    if source.kind not in SPLITTABLE or num_parts < 2:
        return []
    if source.kind == "parquet":
        try:
            size = num_row_groups(source.path)
        except (OSError, ValueError):  # its worker says what is wrong with it
            return []
        num_parts = min(num_parts, size)
    borders = [size * i // num_parts for i in range(num_parts + 1)]
    return list(pairwise(borders)) if num_parts > 1 else []
