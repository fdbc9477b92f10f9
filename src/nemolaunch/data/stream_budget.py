"""The length of a run on a stream and how often each source is read, if the sources' sizes are known."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nemolaunch.data.stream_spec import StreamSpec, shares
from nemolaunch.system.quantities import number

# Minimum readers per data-parallel rank: so that a run can resume with more ranks.
MIN_READERS = 4


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """One source in a run.

    Attributes:
        share: the requested share; all of them sum to 1.
        tokens: read from it; None if shares are of rows whose length is unknown.
        epochs: how often it is read completely; None if its size is unknown.
    """

    name: str
    where: str
    share: float
    tokens: float | None = None
    epochs: float | None = None


def outlook(stream: StreamSpec, unit: str, tokens: int) -> tuple[Outlook, ...]:
    """Return what a run of `tokens` tokens reads of each source."""
    in_tokens = token_shares(stream, unit)
    found = []
    for place, (source, share) in enumerate(zip(stream.sources, shares(stream), strict=True)):
        read = in_tokens[place] * tokens if in_tokens else None
        epochs = read / source.tokens if read is not None and source.tokens else None
        found.append(Outlook(name=source.name, where=source.where, share=share, tokens=read, epochs=epochs))
    return tuple(found)


def token_shares(stream: StreamSpec, unit: str) -> list[float] | None:
    """Return shares in tokens; None if they are of rows and the length of some source's rows is unknown."""
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


def sources_without_size(stream: StreamSpec, unit: str) -> tuple[str, ...]:
    """Return the sources whose missing `tokens` or `rows` leave it unknown how much is read of any source."""
    if token_shares(stream, unit) is not None:
        return ()
    return tuple(source.name for source in stream.sources if not (source.tokens and source.rows))


def tokens_to_end(stream: StreamSpec, unit: str, strategy: str) -> int | None:
    """Return the tokens until the first, or every, source has been read once; None if sizes are unknown."""
    in_tokens = token_shares(stream, unit)
    if in_tokens is None or not stream.sources:
        return None
    ends = []
    for source, share in zip(stream.sources, in_tokens, strict=True):
        if not source.tokens or share <= 0:
            return None
        ends.append(source.tokens / share)
    return int(max(ends) if strategy == "all-exhausted" else min(ends))


def validation_share(split: str | None) -> float:
    """Return the share that `--split` holds out for validation; of a stream's rows there is no test share."""
    parts = [number(word.strip()) or 0.0 for word in (split or "").split(",")]
    return parts[1] / sum(parts) if len(parts) > 1 and sum(parts) > 0 else 0.0


def default_readers(data_parallel_size: int, global_batch_size: int, num_workers: int) -> int:
    """Return the number of readers of a new run.

    Each rank gets the same number, which divides its samples of a step, and is enough for its workers and
    more ranks.
    """
    ranks = max(1, data_parallel_size)
    each = max(1, global_batch_size // ranks)
    wanted = max(num_workers, MIN_READERS)
    return ranks * next((n for n in range(wanted, each) if each % n == 0), each)


def busy_workers(num_workers: int, readers_of_a_rank: int) -> int:
    """Return how many workers of a rank are busy: they share its readers evenly."""
    most = min(num_workers, readers_of_a_rank)
    return next((n for n in range(most, 0, -1) if readers_of_a_rank % n == 0), 0)
