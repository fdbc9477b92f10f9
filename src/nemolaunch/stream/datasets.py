"""Rows read by the `datasets` library in streaming mode.

Only its readers are used, one shard at a time: its own shuffle buffer and interleaving lose rows on resume.
"""

from __future__ import annotations

import functools
from typing import Any

from nemolaunch.data.stream_spec import StreamSource
from nemolaunch.errors import NemolaunchError


@functools.cache
def load(source: StreamSource) -> Any:
    """Return the `IterableDataset` with only the source's column. Raises NemolaunchError."""
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
    if names is not None and source.text_key not in names:
        raise NemolaunchError(
            f"source {source.name}: {source.where} has no column {source.text_key!r}; "
            f"it has {', '.join(names)}"
        )
    return found.select_columns([source.text_key])


def shard(source: StreamSource, number: int) -> Any:
    """Return one shard of the dataset, in its own order."""
    whole = load(source)
    return whole.shard(num_shards=whole.num_shards, index=number)
