"""Which source the next row comes from."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from nemolaunch.stream.order import unit
from nemolaunch.stream.state import Mix

# How far apart in tokens readers begin with a source.
TOKENS_A_ROW = 1000


class Mixer:
    """Chooses for one reader, as stride scheduling does (Waldspurger and Weihl 1995): each source has a next time
    at which it is due, and the one that is due first is next.

    Sources begin at random times within their first interval, different in each reader, so that rows of a rare
    source do not come in all readers at once.
    """

    def __init__(self, mix: Mix, reader: int) -> None:
        self.shares = mix.shares
        self.by_tokens = mix.unit == "tokens"
        scale = TOKENS_A_ROW if self.by_tokens else 1
        self.starts = [scale * unit("start", reader, source) for source in range(len(mix.shares))]

    def choose(self, counts: Sequence[float], without: Collection[int] = ()) -> int | None:
        """The next source, by what was fed of each in rows or tokens; None if all are left out.

        A source with a share of 0 is one that is no longer read.
        """
        return min(
            (source for source, share in enumerate(self.shares) if share > 0 and source not in without),
            key=lambda source: ((counts[source] + self.starts[source]) / self.shares[source], source),
            default=None,
        )
