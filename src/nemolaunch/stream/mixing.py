"""The choice of the source of the next row."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from nemolaunch.stream.order import unit
from nemolaunch.stream.state import Mix

# How far apart, in tokens, readers start with a source.
TOKENS_PER_ROW = 1000


class Mixer:
    """Stride scheduler of one reader (Waldspurger and Weihl 1995): the source that is due first is next.

    Sources start at random times within their first interval, different in each reader, so that rows of a
    rare source do not come up in all readers at once.
    """

    def __init__(self, mix: Mix, reader: int) -> None:
        self.shares = mix.shares
        self.by_tokens = mix.unit == "tokens"
        scale = TOKENS_PER_ROW if self.by_tokens else 1
        self.starts = [scale * unit("start", reader, source) for source in range(len(mix.shares))]

    def choose(self, counts: Sequence[float], without: Collection[int] = ()) -> int | None:
        """Return the next source, by what was fed of each in rows or tokens; None if all are excluded.

        A source with a share of 0 is no longer read.
        """
        return min(
            (source for source, share in enumerate(self.shares) if share > 0 and source not in without),
            key=lambda source: ((counts[source] + self.starts[source]) / self.shares[source], source),
            default=None,
        )
