"""What a stream means for a run, as far as its sources' sizes are known: its length, and how often each is read."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nemolaunch.data.stream_spec import StreamSpec, shares
from nemolaunch.system.quantities import number

# Readers for each data-parallel rank, at least: so that a run can go on with more ranks.
LEAST_READERS = 4


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """One source in a run.

    Attributes:
        share: asked for, together 1.
        tokens: read of it; None where shares are of rows whose length is not known.
        epochs: how often that is all of it; None where its size is not known.
    """

    name: str
    where: str
    share: float
    tokens: float | None = None
    epochs: float | None = None


def outlook(stream: StreamSpec, unit: str, tokens: int) -> tuple[Outlook, ...]:
    """What a run of so many tokens reads of each source."""
    in_tokens = token_shares(stream, unit)
    found = []
    for place, (source, share) in enumerate(zip(stream.sources, shares(stream), strict=True)):
        read = in_tokens[place] * tokens if in_tokens else None
        epochs = read / source.tokens if read is not None and source.tokens else None
        found.append(Outlook(name=source.name, where=source.where, share=share, tokens=read, epochs=epochs))
    return tuple(found)


def token_shares(stream: StreamSpec, unit: str) -> list[float] | None:
    """Shares in tokens; None where they are of rows and the length of some source's rows is not known."""
    given = shares(stream)
    if unit == "tokens" or len(given) == 1:
        return given
    lengths = [s.tokens / s.rows if s.tokens and s.rows else None for s in stream.sources]
    known = [length for length in lengths if length is not None]
    if len(known) < len(lengths):
        return None
    weights = [share * length for share, length in zip(given, known, strict=True)]
    total = math.fsum(weights) or 1.0
    return [weight / total for weight in weights]


def unsized(stream: StreamSpec, unit: str) -> tuple[str, ...]:
    """Sources for want of whose `tokens` and `rows` nothing is known of how much is read of any."""
    if token_shares(stream, unit) is not None:
        return ()
    return tuple(source.name for source in stream.sources if not (source.tokens and source.rows))


def whole_tokens(stream: StreamSpec, unit: str, strategy: str) -> int | None:
    """Tokens until the first or every source has been read once; None where sizes are not known."""
    in_tokens = token_shares(stream, unit)
    if in_tokens is None or not stream.sources:
        return None
    ends = []
    for source, share in zip(stream.sources, in_tokens, strict=True):
        if not source.tokens or share <= 0:
            return None
        ends.append(source.tokens / share)
    return int(max(ends) if strategy == "all-exhausted" else min(ends))


def validation_share(split: str) -> float:
    """Share of the rows of a stream that `--split` holds out for validation; there is no share for tests."""
    parts = [number(word.strip()) or 0.0 for word in split.split(",")]
    return parts[1] / sum(parts) if len(parts) > 1 and sum(parts) > 0 else 0.0


def default_readers(data_parallel_size: int, global_batch_size: int, num_workers: int) -> int:
    """Readers of a new run: as many for each rank, which divide its samples of a step, and enough for its
    workers and for growth."""
    ranks = max(1, data_parallel_size)
    each = max(1, global_batch_size // ranks)
    wanted = max(num_workers, LEAST_READERS)
    return ranks * next((n for n in range(wanted, each) if each % n == 0), each)


def working(num_workers: int, readers_of_a_rank: int) -> int:
    """Workers of a rank that have something to do: they share its readers evenly."""
    most = min(num_workers, readers_of_a_rank)
    return next((n for n in range(most, 0, -1) if readers_of_a_rank % n == 0), 0)
