"""Rows read by the `datasets` library in streaming mode.

Only its readers are used, one shard at a time: its own shuffle buffer and interleaving lose rows on resume.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from nemolaunch.data.stream_spec import StreamSource
from nemolaunch.errors import NemolaunchError


@functools.cache
def load(source: StreamSource) -> Any:
    """Return the `IterableDataset` with only the source's column, or that which holds `data.text`.

    Raises:
        NemolaunchError: it cannot be opened, or has no such column.
    """
    import datasets

    datasets.disable_progress_bars()
    try:
        found = datasets.load_dataset(
            str(source.dataset),
            source.config,
            split=source.split,
            revision=source.revision,
            streaming=True,
        )
        names = found.column_names
    except Exception as error:  # the library raises whatever its builders raise
        reason = " ".join(str(error).split())[:300]
        raise NemolaunchError(
            f"source {source.name}: cannot open {source.where}: {type(error).__name__}: {reason}"
        ) from None
    column = outer_column(source.text_key, names)
    if column is None:
        raise NemolaunchError(
            f"source {source.name}: {source.where} has no column {source.text_key!r}; "
            f"it has {', '.join(names or ())}"
        )
    return found.select_columns([column])


def outer_column(key: str, names: Sequence[str] | None) -> str | None:
    """Return the column that a key is in: itself, or `data` for `data.text`; None if there is none.

    Args:
        names: the columns; None if the library cannot tell, where a key with a dot then means one inside another.
    """
    outer = key.partition(".")[0]
    if names is None:
        return outer
    return next((name for name in (key, outer) if name in names), None)


def shard(source: StreamSource, number: int) -> Any:
    """Return one shard of the dataset, in its own order."""
    whole = load(source)
    return whole.shard(num_shards=whole.num_shards, index=number)
