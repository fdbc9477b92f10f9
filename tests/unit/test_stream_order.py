"""Every row is dealt to exactly one reader, and all readers get about the same amount."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemolaunch.stream.order import FileShare, bits, cut, dealt, groups_of, in_share, permutation


def test_the_order_never_changes() -> None:
    """A run that is resumed with another version of numpy must keep its order."""
    assert bits(7, np.arange(3)).tolist() == [7191089600892374487, 309689372594955804, 16616101746815609346]
    assert permutation(8, 1234, "source", 0).tolist() == [7, 2, 4, 3, 6, 1, 5, 0]


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=40), st.integers(1, 16), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_each_row_goes_to_one_reader(sizes: list[int], readers: int, seed: int) -> None:
    pieces = cut(sizes, readers)
    hands = dealt(pieces, sizes, readers, permutation(len(pieces), seed))
    assert all(hands)
    num_groups = [size % 5 + 1 for size in sizes]
    seen: Counter[tuple[int, int, int]] = Counter()
    for hand in hands:
        for piece in hand:
            for group in groups_of(num_groups[piece.file], piece):
                rows = np.arange(50)
                seen.update((piece.file, group.file, r) for r in rows[in_share(rows, group)].tolist())
    assert set(seen.values()) == {1}
    assert len(seen) == 50 * sum(num_groups)


def test_many_files_of_equal_size_are_not_cut() -> None:
    pieces = cut([100] * 64, readers=8)
    assert pieces == [FileShare(file, 0, 1) for file in range(64)]


@pytest.mark.parametrize("sizes", [[10**9], [5, 7 * 10**8, 10**8], list(range(10**6, 10**6 + 1000))])
def test_readers_get_about_the_same_amount(sizes: list[int]) -> None:
    pieces = cut(sizes, 8)
    hands = dealt(pieces, sizes, 8, permutation(len(pieces), 3))
    loads = [sum(sizes[p.file] / p.of for p in hand) for hand in hands]
    assert max(loads) / min(loads) < 1.1
