"""Pseudo-random orders that depend on their arguments alone: the same on every machine and in every version.

Also which reader gets which pieces of which files, so that all get about the same amount.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

# Minimum pieces of each source that a reader gets per epoch: enough to balance files of different sizes.
PIECES_EACH = 4


def key(*words: object) -> int:
    """Return a 64-bit hash of some words."""
    text = "\0".join(map(str, words)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def bits(seed: int, numbers: Array) -> Array:
    """Return 64 random bits per number, uint64 [n]: the output of SplitMix64 (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        x = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def permutation(count: int, *words: object) -> Array:
    """Return the numbers below `count` in a random order, int64."""
    return np.argsort(bits(key(*words), np.arange(count)), kind="stable")


def unit(*words: object) -> float:
    """Return a random number in [0, 1)."""
    return float(key(*words) >> 11) * 2.0**-53


@dataclass(frozen=True)
class FileShare:
    """Share `share` of `of` equal shares of the file number `file`."""

    file: int
    share: int
    of: int


def cut(sizes: Sequence[int], readers: int) -> list[FileShare]:
    """Cut files into pieces that can be shared out evenly: a multiple of the readers, none much too large.

    `sizes` are in bytes, or in any unit. A file is cut only if there are too few files, or it is much larger
    than others: reading a piece of a file can cost more than its share.
    """
    if readers == 1 or not sizes:
        return [FileShare(file, 0, 1) for file in range(len(sizes))]
    fair = (sum(sizes) or len(sizes)) / readers
    shares = [max(1, round(size * PIECES_EACH / fair)) for size in sizes]
    scraps = sum(size * PIECES_EACH * 2 < fair for size in sizes)
    largest_first = [(-size / of, file) for file, (size, of) in enumerate(zip(sizes, shares, strict=True))]
    heapq.heapify(largest_first)
    for _ in range((scraps - sum(shares)) % readers):
        file = largest_first[0][1]
        shares[file] += 1
        heapq.heapreplace(largest_first, (-sizes[file] / shares[file], file))
    return [FileShare(file, share, of) for file, of in enumerate(shares) for share in range(of)]


def dealt(
    pieces: Sequence[FileShare], sizes: Sequence[int], readers: int, order: Array
) -> list[list[FileShare]]:
    """Return the pieces of each reader, in the order in which it reads them.

    The largest piece goes to the reader with the least so far; among equal ones the first in `order`.
    """
    weights = np.array([max(sizes[p.file], 1) / p.of for p in pieces])
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    hands: list[list[int]] = [[] for _ in range(readers)]
    held = [(0.0, reader) for reader in range(readers)]
    for number in order[np.argsort(-weights[order], kind="stable")].tolist():
        load, reader = held[0]
        hands[reader].append(number)
        heapq.heapreplace(held, (load + float(weights[number]), reader))
    return [[pieces[number] for number in sorted(hand, key=place.__getitem__)] for hand in hands]


def groups_of(count: int, piece: FileShare) -> list[FileShare]:
    """Return a piece's share of the `count` groups of its file: whole groups, and shares of the rest.

    `file` of what is returned is the number of a group.
    """
    whole = count // piece.of * piece.of
    mine = [FileShare(group, 0, 1) for group in range(piece.share, whole, piece.of)]
    return mine + [FileShare(group, piece.share, piece.of) for group in range(whole, count)]


def in_share(rows: Array, group: FileShare) -> Array:
    """Return True for the rows of a group that are in the share: every `of`-th, with an offset per group."""
    return (rows + group.file) % group.of == group.share
