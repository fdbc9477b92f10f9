"""Rows held out for validation: the same ones whatever the run's seed, readers and restarts.

They are whole files if there are enough, so that no other rows have to be read to find them; else a share of
the rows of one file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nemolaunch.stream.manifest import Listed
from nemolaunch.stream.order import Array, bits, key, permutation
from nemolaunch.stream.rows import Wanted


@dataclass(frozen=True)
class HeldOut:
    """The held-out part of one source: whole files, and a share of the rows of one further file."""

    files: frozenset[int] = frozenset()
    partial: int | None = None
    share: float = 0.0

    def files_of(self, validation: bool, count: int) -> list[int]:
        """Return the numbers of the files, of `count`, from which training or validation data are read."""
        if validation:
            return sorted(self.files) if self.partial is None else [self.partial]
        return [file for file in range(count) if file not in self.files]

    def wanted(self, validation: bool, file: int) -> Wanted:
        """Return which rows of a file belong to training or validation data."""
        if file != self.partial:
            return None
        below = self.share * 2.0**53

        def chosen(group: int, places: Array) -> Array:
            held = bits(key("held out", file, group), places) >> np.uint64(11) < below
            return held if validation else ~held

        return chosen


def held_out(listed: Listed, share: float) -> HeldOut:
    """Return what to hold out of a source: a share of it between 0 and 1."""
    count = len(listed.files)
    if share <= 0 or not count:
        return HeldOut()
    order = permutation(count, "held out", listed.source.name).tolist()
    whole = int(share * count)
    if whole:
        return HeldOut(files=frozenset(order[:whole]))
    return HeldOut(partial=order[0], share=share * count)
