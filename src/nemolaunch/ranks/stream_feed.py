"""From readers to micro batches: worker processes produce samples, and the rank takes them, step by step."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, default_collate, get_worker_info

from nemolaunch.data.stream_budget import busy_workers
from nemolaunch.errors import NemolaunchError
from nemolaunch.ranks.stream_fields import Fields, next_token
from nemolaunch.stream.ledger import FedFile
from nemolaunch.stream.order import Array
from nemolaunch.stream.reader import Encode, Reader, Sample, StreamSetup
from nemolaunch.stream.state import ReaderState
from nemolaunch.stream.text import RowEncoder
from nemolaunch.tokenization.tokenizer import TokenizerSpec

# Steps of samples that workers produce in advance, and the maximum number of samples per worker.
STEPS_AHEAD = 2
MAX_AHEAD = 256


@dataclass(frozen=True, kw_only=True)
class Work:
    """The work of a rank's workers: its readers with their states, and how they encode."""

    setup: StreamSetup
    readers: tuple[int, ...]
    states: tuple[ReaderState, ...]
    spec: TokenizerSpec
    engine: str
    fields: Fields = next_token


@dataclass(frozen=True)
class Item:
    """An item from a reader: a sample with its fields, or (without a sample) its end or its error."""

    reader: int
    sample: Sample | None = None
    fields: dict[str, Any] | None = None
    error: str | None = None


class Samples(IterableDataset[Item]):
    """Items of the rank's readers in turn. Of W workers, each runs every W-th reader."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def __iter__(self) -> Iterator[Item]:
        info = get_worker_info()
        first, of = (info.id, info.num_workers) if info else (0, 1)
        work = self._work
        encode: Encode = RowEncoder(work.spec, work.engine)
        mine = list(zip(work.readers, work.states, strict=True))[first::of]
        readers = [(number, iter(Reader(work.setup, number, encode, state))) for number, state in mine]
        while True:
            for number, reader in readers:
                try:
                    sample = next(reader, None)
                    fields = work.fields(sample.tokens, sample.number) if sample else None
                    yield Item(number, sample, fields)
                except NemolaunchError as error:
                    while True:  # repeated until its turn comes, when the trainer ends
                        yield Item(number, error=str(error))


class RankFeed:
    """The samples of one rank, one step at a time: micro batches for the trainer, states for its checkpoints.

    `prepare` waits for a step's samples before the step begins, so that all ranks can agree whether there is
    another step. States describe the samples that were taken, not those produced in advance.
    """

    def __init__(
        self,
        work: Work,
        *,
        num_workers: int,
        most_samples_a_step: int,
        micro_batch_size: int,
        fed: FedFile | None,
    ) -> None:
        self._readers = work.readers
        self._micro_batch = micro_batch_size
        self._fed = fed
        self._workers = busy_workers(num_workers, len(work.readers))
        ahead = STEPS_AHEAD * -(-most_samples_a_step // max(1, self._workers))
        self._loader: DataLoader[Item] = DataLoader(
            Samples(work),
            batch_size=None,
            num_workers=self._workers,
            collate_fn=_as_it_is,
            prefetch_factor=min(max(2, ahead), MAX_AHEAD) if self._workers else None,
            generator=torch.Generator(),  # otherwise it draws from that of dropout on a CPU
        )
        self._items: Iterator[Item] | None = None
        self._ready: deque[Item] = deque()
        self._states = {number: state.pack() for number, state in zip(work.readers, work.states, strict=True)}
        self._once = dict.fromkeys(work.readers, False)
        self._turn = 0
        self.taken = 0
        self.ended = False
        self.error: str | None = None

    def __iter__(self) -> RankFeed:
        return self

    def prepare(self, samples: int) -> None:
        """Wait for the samples of the next step; if there are too few, `ended` or `error` is set."""
        while len(self._ready) < samples and not self.ended and self.error is None:
            if self._items is None:
                self._items = iter(self._loader)
            item = next(self._items)
            expected = self._readers[self._turn % len(self._readers)]
            assert item.reader == expected, f"reader {item.reader} came in the turn of {expected}"
            self._turn += 1
            if item.error is not None:
                self.error = item.error
            elif item.sample is None:
                self.ended = True
            else:
                self._ready.append(item)

    def __next__(self) -> dict[str, torch.Tensor]:
        """Return the next micro batch, each field [micro_batch_size, seq_length]."""
        if len(self._ready) < self._micro_batch:
            self.prepare(self._micro_batch)
        if len(self._ready) < self._micro_batch:
            raise StopIteration
        items = [self._ready.popleft() for _ in range(self._micro_batch)]
        for item in items:
            self._take(item)
        batch: dict[str, torch.Tensor] = default_collate([item.fields for item in items])
        return batch

    def _take(self, item: Item) -> None:
        assert item.sample is not None
        self._states[item.reader] = item.sample.state
        self._once[item.reader] = item.sample.once
        self.taken += 1
        if self._fed is not None:
            self._fed.add(item.sample.number, item.sample.fed)

    @property
    def once(self) -> bool:
        """Whether all readers of the rank have reached the end of every source at least once."""
        return all(self._once.values())

    def states(self) -> Array:
        """Return the packed states of the rank's readers after the samples taken, int64 [readers, …]."""
        return np.stack([self._states[number] for number in self._readers])

    def sync(self) -> None:
        """Flush the ledger of the samples taken to disk."""
        if self._fed is not None:
            self._fed.sync()

    def close(self) -> None:
        """Stop the workers, and close the ledger of this rank."""
        self._items = None
        if self._fed is not None:
            self._fed.close()
            self._fed = None


def _as_it_is(item: Any) -> Any:
    return item


class ValidationFeed:
    """The samples of validation, the same each time: produced once by worker processes, then kept.

    Iterating yields `batches` micro batches.
    """

    def __init__(self, work: Work, *, num_workers: int, batches: int, micro_batch_size: int) -> None:
        self._work, self._workers = work, num_workers
        self._count, self._micro_batch = batches, micro_batch_size
        self._kept: list[dict[str, torch.Tensor]] = []

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        if not self._kept:
            feed = RankFeed(
                self._work,
                num_workers=self._workers,
                most_samples_a_step=self._micro_batch,
                micro_batch_size=self._micro_batch,
                fed=None,
            )
            self._kept = [batch for batch, _ in zip(feed, range(self._count), strict=False)]
            feed.close()
            if feed.error or len(self._kept) < self._count:
                raise NemolaunchError(
                    f"validation: {feed.error or 'too few rows are held out'}; hold out more with --split, or "
                    "turn validation off with --limit-val-batches 0"
                )
        return iter(self._kept)
