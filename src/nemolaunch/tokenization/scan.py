"""The content of a `.bin/.idx` pair, and a check for corruption."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemolaunch.tokenization import manifest
from nemolaunch.tokenization.index import BLOCK, ITEM_BYTES, Index, read_index

if TYPE_CHECKING:
    import numpy as np

# Problems of a kind that are listed.
LISTED = 3


@dataclass
class Scan:
    """The result of a scan.

    Attributes:
        histogram: documents by length in tokens; place i counts lengths from 2**(i-1) to 2**i - 1, place 0
            empty ones.
        without_eod: non-empty documents that do not end with the end-of-document id, if that is known.
        problems: what is corrupt, and where.
    """

    dtype: str
    documents: int
    sequences: int
    tokens: int
    shortest: int = 0
    longest: int = 0
    histogram: list[int] = field(default_factory=list)
    max_id: int | None = None
    without_eod: int | None = None
    problems: list[str] = field(default_factory=list)


def scan(prefix: Path, *, vocab_size: int | None, eod_id: int | None, ids: bool = True) -> Scan:
    """Check every entry of the `.idx`, and with `ids` every id of the `.bin`, in bounded memory.

    Raises NemolaunchError if the `.idx` cannot be read at all.
    """
    import numpy as np

    index = read_index(manifest.idx_of(prefix))
    header = index.header
    tokens = sum(int(block.sum(dtype=np.int64)) for block in _blocks(index.lengths))
    found = Scan(header.dtype, header.documents, header.sequences, tokens)
    _check_sequences(index, found)
    _check_documents(index, found)
    bin_path = manifest.bin_of(prefix)
    if not bin_path.exists():
        found.problems.append(f"{bin_path} is missing")
        return found
    size, expected = os.path.getsize(bin_path), tokens * ITEM_BYTES[header.dtype]
    if size != expected:
        found.problems.append(
            f"{bin_path} has {size:,} bytes; the lengths in the .idx sum to {tokens:,}"
            f" tokens, {expected:,} bytes"
        )
    if not found.problems:
        _measure(index, found)
        if ids and size:
            _check_ids(index, bin_path, found, vocab_size, eod_id)
    return found


def _blocks(array: np.ndarray[Any, Any]) -> Iterator[np.ndarray[Any, Any]]:
    for start in range(0, len(array), BLOCK):
        yield array[start : start + BLOCK]


def _note(found: Scan, count: int, what: str) -> int:
    """List a problem unless enough of its kind are listed. Return the new count."""
    if count < LISTED:
        found.problems.append(what)
    elif count == LISTED:
        found.problems.append("… and more of the same kind")
    return count + 1


def _check_sequences(index: Index, found: Scan) -> None:
    """Check that lengths are positive, and each pointer is the sum of the lengths before it."""
    import numpy as np

    before, noted = 0, 0
    item = ITEM_BYTES[index.header.dtype]
    for start in range(0, len(index.lengths), BLOCK):
        lengths = index.lengths[start : start + BLOCK]
        ends = np.cumsum(lengths, dtype=np.int64) * item
        expected = np.concatenate(([0], ends[:-1])) + before
        pointers = index.pointers[start : start + BLOCK]
        for i in np.flatnonzero((pointers != expected) | (lengths <= 0))[: LISTED + 1]:
            at = index.header.pointers_at + 8 * (start + int(i))
            noted = _note(
                found,
                noted,
                f"{index.path}: sequence {start + int(i):,} has length {lengths[i]} and starts at byte"
                f" {pointers[i]:,} of the .bin (.idx byte {at:,});"
                f" the lengths before it sum to {expected[i]:,}",
            )
        before += int(ends[-1])


def _check_documents(index: Index, found: Scan) -> None:
    """Check that document starts begin with 0, never decrease, and end with the number of sequences."""
    import numpy as np

    starts, noted = index.documents, 0
    if starts[0] != 0:
        found.problems.append(f"{index.path}: the first document starts at sequence {starts[0]}, not 0")
    if starts[-1] != index.header.sequences:
        found.problems.append(
            f"{index.path}: the last document ends at sequence {starts[-1]:,},"
            f" but there are {index.header.sequences:,}"
        )
    for start in range(0, index.header.documents, BLOCK):
        steps = np.diff(starts[start : start + BLOCK + 1])
        for i in np.flatnonzero(steps < 0)[: LISTED + 1]:
            at = index.header.documents_at + 8 * (start + int(i) + 1)
            noted = _note(
                found, noted, f"{index.path}: document {start + int(i):,} ends before it starts (byte {at:,})"
            )


def document_lengths(index: Index) -> Iterator[np.ndarray[Any, Any]]:
    """Yield the number of tokens of each document, int64, in blocks."""
    import numpy as np

    for start in range(0, index.header.documents, BLOCK):
        borders = index.documents[start : start + BLOCK + 1]
        lengths = index.lengths[borders[0] : borders[-1]]
        sums = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
        yield np.diff(sums[borders - borders[0]])


def _measure(index: Index, found: Scan) -> None:
    import numpy as np

    histogram = np.zeros(64, np.int64)
    shortest: int | None = None
    for lengths in document_lengths(index):
        places = np.where(lengths > 0, np.floor(np.log2(np.maximum(lengths, 1))) + 1, 0)
        histogram += np.bincount(places.astype(np.int64), minlength=64)
        shortest = int(lengths.min()) if shortest is None else min(shortest, int(lengths.min()))
        found.longest = max(found.longest, int(lengths.max()))
    found.shortest = shortest or 0
    used = np.flatnonzero(histogram)
    found.histogram = histogram[: int(used[-1]) + 1].tolist() if len(used) else []


def _check_ids(index: Index, path: Path, found: Scan, vocab_size: int | None, eod_id: int | None) -> None:
    import numpy as np

    tokens = np.memmap(path, np.dtype(index.header.dtype), "r")
    found.max_id, noted = -1, 0
    for start in range(0, len(tokens), 8 * BLOCK):
        block = tokens[start : start + 8 * BLOCK]
        highest, lowest = int(block.max()), int(block.min())
        found.max_id = max(found.max_id, highest)
        if lowest >= 0 and (vocab_size is None or highest < vocab_size):
            continue
        bad = np.flatnonzero((block < 0) | (block >= (vocab_size or 2**31)))
        for i in bad[: LISTED + 1]:
            token = start + int(i)
            sequence = int(np.searchsorted(index.pointers, token * tokens.itemsize, side="right")) - 1
            where = f"at token {token:,}, in sequence {sequence:,}"
            what = f"{path}: id {block[i]} {where}; ids are below {vocab_size}"
            noted = _note(found, noted, what)
    if eod_id is not None:
        found.without_eod = _without_eod(index, tokens, eod_id)


def _without_eod(index: Index, tokens: Any, eod_id: int) -> int:
    import numpy as np

    missing = 0
    for start in range(0, index.header.documents, BLOCK):
        borders = index.documents[start : start + BLOCK + 1]
        last = borders[1:][np.diff(borders) > 0] - 1
        ends = index.pointers[last] // tokens.itemsize + index.lengths[last] - 1
        missing += int(np.count_nonzero(tokens[ends] != eod_id))
    return missing


def first_documents(prefix: Path, count: int, max_tokens: int) -> list[list[int]]:
    """Return the ids of the first documents, each truncated to `max_tokens`."""
    import numpy as np

    index = read_index(manifest.idx_of(prefix))
    if not index.header.sequences:
        return []
    tokens = np.memmap(manifest.bin_of(prefix), np.dtype(index.header.dtype), "r")
    found: list[list[int]] = []
    for document in range(min(count, index.header.documents)):
        first, end = index.documents[document : document + 2]
        if first == end:
            found.append([])
            continue
        at = int(index.pointers[first]) // tokens.itemsize
        length = min(int(index.lengths[first:end].sum(dtype=np.int64)), max_tokens)
        found.append(tokens[at : at + length].tolist())
    return found
