"""The rows in the files of a stream, and the order in which a reader reaches them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nemolaunch.data.stream_spec import StreamSource
from nemolaunch.stream.holdout import HeldOut
from nemolaunch.stream.manifest import File, Listed
from nemolaunch.stream.order import Array, FileShare, cut, dealt, groups_of, in_share, permutation
from nemolaunch.stream.rows import Damaged, open_rows


@dataclass(frozen=True)
class Inventory:
    """All places of a source, in the order of its files, groups and rows.

    Attributes:
        first_group: for each file, the number of its first group, over all files; and one more for the end.
        first_place: for each group, the number of its first place; and one more for the end.
        exists: True for places with a row; a blank line is not a row.
        unreadable: groups that cannot be read, as (file, group).
    """

    first_group: Array
    first_place: Array
    exists: Array
    unreadable: tuple[tuple[int, int], ...] = ()

    def places(self, file: Array, group: Array, row: Array) -> Array:
        """Return the places of rows by file, group and row; -1 for rows that do not exist."""
        groups = self.first_group[file] + group
        places = self.first_place[groups] + row
        return np.where(places < self.first_place[groups + 1], places, -1)

    def name(self, place: int) -> tuple[int, int, int]:
        """Return the file, group and row of a place."""
        group = int(np.searchsorted(self.first_place, place, side="right")) - 1
        file = int(np.searchsorted(self.first_group, group, side="right")) - 1
        return file, group - int(self.first_group[file]), place - int(self.first_place[group])


def count_rows(source: StreamSource, file: File) -> list[Array | None]:
    """Return which places of each group of a file have a row; None for a group that cannot be read."""
    try:
        rows = open_rows(source, file)
    except Damaged:
        return [None]
    try:
        if (counts := rows.counts()) is not None:
            return [np.ones(count, bool) for count in counts]
        return [_found(rows.read(FileShare(group, 0, 1), None, 0)) for group in range(rows.num_groups)]
    finally:
        rows.close()


def _found(rows: object) -> Array:
    places = []
    try:
        for row in rows:  # type: ignore[attr-defined]
            places.append(row.place)
    except Damaged:
        pass
    exists = np.zeros(max(places, default=-1) + 1, bool)
    exists[places] = True
    return exists


def take(
    listed: Listed, count: Callable[[StreamSource, Sequence[File]], Sequence[list[Array | None]]]
) -> Inventory:
    """Return all rows of a source. `count` calls `count_rows` for each file, perhaps in several processes."""
    per_file = count(listed.source, listed.files)
    groups = [group for file in per_file for group in file]
    unreadable = [(f, g) for f, file in enumerate(per_file) for g, group in enumerate(file) if group is None]
    known = [np.zeros(0, bool) if group is None else group for group in groups]
    return Inventory(
        first_group=np.cumsum([0, *(len(file) for file in per_file)]),
        first_place=np.cumsum([0, *(len(group) for group in known)]),
        exists=np.concatenate(known) if known else np.zeros(0, bool),
        unreadable=tuple(unreadable),
    )


def held(inventory: Inventory, held_out: HeldOut) -> Array:
    """Return True for places whose rows are held out for validation."""
    found = np.zeros(len(inventory.exists), bool)
    for file in range(len(inventory.first_group) - 1):
        groups = range(int(inventory.first_group[file]), int(inventory.first_group[file + 1]))
        wanted = held_out.wanted(True, file)
        for number, group in enumerate(groups):
            start, stop = int(inventory.first_place[group]), int(inventory.first_place[group + 1])
            if file in held_out.files:
                found[start:stop] = True
            elif wanted is not None:
                found[start:stop] = wanted(number, np.arange(stop - start))
    return found


def sequences(
    inventory: Inventory,
    listed: Listed,
    held_out: HeldOut,
    *,
    seed: int,
    epoch: int,
    readers: int,
    shuffle: bool,
) -> list[Array]:
    """Return the places of each reader's rows in an epoch, in the order in which it reads them."""
    files = held_out.files_of(False, len(listed.files))
    sizes = [listed.files[file].size for file in files]
    pieces = cut(sizes, readers)
    if not pieces:
        return [np.zeros(0, np.int64)] * readers
    order = permutation(len(pieces), "pieces", seed, listed.source.name, epoch)
    if not shuffle:
        order = np.arange(len(pieces))
    usable = inventory.exists & ~held(inventory, held_out)
    return [
        np.concatenate(
            [_of_piece(inventory, usable, files[p.file], p) for p in hand] or [np.zeros(0, np.int64)]
        )
        for hand in dealt(pieces, sizes, readers, order)
    ]


def _of_piece(inventory: Inventory, usable: Array, file: int, piece: FileShare) -> Array:
    first, end = int(inventory.first_group[file]), int(inventory.first_group[file + 1])
    found = [np.zeros(0, np.int64)]
    for group in groups_of(end - first, piece):
        start = int(inventory.first_place[first + group.file])
        rows = np.arange(int(inventory.first_place[first + group.file + 1]) - start)
        found.append(start + rows[in_share(rows, group) & usable[start + rows]])
    return np.concatenate(found)
