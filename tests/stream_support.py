"""Corpora in every format for the tests of streams, and an encoder that needs no tokenizer."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nemolaunch.data.stream_spec import StreamSpec, shares, with_text_key
from nemolaunch.facts.dataset_words import read_stream
from nemolaunch.stream import manifest
from nemolaunch.stream.cursor import Rules
from nemolaunch.stream.holdout import held_out
from nemolaunch.stream.reader import Reader, Sample, StreamSetup
from nemolaunch.stream.state import Mix, ReaderState

EOD = 0


def encode(rows: Sequence[Sequence[str]]) -> list[Any]:
    """Encode each row as one token per character, followed by EOD."""
    return [np.array([*map(ord, "".join(texts)), EOD], np.int32) for texts in rows]


def texts_of(name: str, count: int, seed: int = 0) -> list[str]:
    """Return texts of very different lengths that start with their own name."""
    rng = random.Random(f"{name}{seed}")
    return [f"{name}{i}:" + "x" * int(rng.paretovariate(0.9) * 3) for i in range(count)]


def write(path: Path, texts: Sequence[Any], column: str = "text", group: int = 7) -> Path:
    """Write a file of texts, in the format that its name implies. Return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        table = pa.table({"id": range(len(texts)), column: pa.array(texts, pa.string())})
        pq.write_table(table, path, row_group_size=group)
        return path
    data = b"".join(json.dumps({column: text}).encode() + b"\n" for text in texts)
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".zst":
        data = pa.compress(data, codec="zstd", asbytes=True)
    path.write_bytes(data)
    return path


def setup(
    words: str | StreamSpec,
    *,
    readers: int = 4,
    window: int = 10,
    seq_length: int = 32,
    unit: str = "rows",
    share: float = 0.0,
    **rules: Any,
) -> StreamSetup:
    """Return the setup of a stream's readers."""
    stream = with_text_key(words if isinstance(words, StreamSpec) else read_stream((words,)), "text")
    assert not stream.error, stream.error
    listed = manifest.make(stream)
    return StreamSetup(
        manifest=listed,
        rules=Rules(**{"seed": 11, "readers": readers, **rules}),
        windows=(window,) * len(listed.sources),
        held_out=tuple(held_out(source, share) for source in listed.sources),
        mixes=(Mix(tuple(shares(stream)), unit),),
        seq_length=seq_length,
    )


def samples(of: StreamSetup, reader: int, count: int, state: ReaderState | None = None) -> list[Sample]:
    """Return the next samples of one reader, fewer if it ends."""
    made = Reader(of, reader, encode, state)
    return [sample for sample, _ in zip(made, range(count), strict=False)]
