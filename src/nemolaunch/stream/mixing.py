"""Which source the next row comes from."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from nemolaunch.stream.order import unit

# Tokens of a row, before any was seen.
TOKENS_A_ROW = 1000


class Mixer:
    """Chooses for one reader, as stride scheduling does (Waldspurger and Weihl 1995): each source has a next time
    at which it is due, and the one that is due first is next.

    Sources begin at random times within their first interval, different in each reader, so that rows of a rare
    source do not come in all readers at once.
    """

    def __init__(self, shares: Sequence[float], by_tokens: bool, reader: int) -> None:
        self.shares = list(shares)
        scale = TOKENS_A_ROW if by_tokens else 1
        self.starts = [scale * unit("start", reader, source) for source in range(len(shares))]

    def choose(self, counts: Sequence[float], without: Collection[int] = ()) -> int | None:
        """The next source, by what was fed of each in rows or tokens; None if all are left out."""
        return min(
            (source for source in range(len(self.shares)) if source not in without),
            key=lambda source: ((counts[source] + self.starts[source]) / self.shares[source], source),
            default=None,
        )
