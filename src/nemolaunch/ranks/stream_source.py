"""The stream of a run, as one rank reads it: its session, its feeds and its position, whichever framework trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nemolaunch.data.stream_spec import StreamSpec
from nemolaunch.errors import NemolaunchError
from nemolaunch.planning import Plan
from nemolaunch.ranks.documents import are_marked
from nemolaunch.ranks.log import log
from nemolaunch.ranks.masked_data import masking_of
from nemolaunch.ranks.stream_feed import RankFeed, ValidationFeed, Work
from nemolaunch.ranks.stream_fields import DocumentFields, Fields, MaskedTokens, next_token
from nemolaunch.stream import ledger, session
from nemolaunch.stream.manifest import Manifest
from nemolaunch.stream.session import StartedSession
from nemolaunch.stream.state import HEADER, PER_SOURCE, ReaderState, StreamState
from nemolaunch.tokenization import proof
from nemolaunch.tokenization.tokenizer import TokenizerSpec, resolve


@dataclass(frozen=True, kw_only=True)
class Place:
    """The place of a rank among those that read the stream.

    Attributes:
        rank: among the `ranks` that are data parallel.
        group: of these ranks.
        is_first: whether it is the first process of a model replica, which writes the ledger.
    """

    rank: int
    ranks: int
    group: Any
    is_first: bool

    @classmethod
    def of(cls, groups: Any) -> Place:
        """Return this rank's place, as Megatron's module `parallel_state` says it."""
        first = groups.get_tensor_model_parallel_rank() + groups.get_context_parallel_rank() == 0
        return cls(
            rank=groups.get_data_parallel_rank(),
            ranks=groups.get_data_parallel_world_size(),
            group=groups.get_data_parallel_group(),
            is_first=first and groups.is_pipeline_first_stage(ignore_virtual=True),
        )


class StreamSource:
    """The stream of a run. Creating it begins a session, which all ranks do together.

    Args:
        words: the tokenizer, as transformers loads it.
        samples: consumed before, over all ranks.
        loaded: the position in a checkpoint, if it has one.

    Attributes:
        begun: the session.
        feed: this rank's training samples, once they are read.

    Raises:
        NemolaunchError: the files or the tokenizer are not those of the run so far.
    """

    def __init__(
        self, plan: Plan, place: Place, words: Any, *, samples: int, loaded: StreamState | None
    ) -> None:
        self._plan, self._job, self._place, self._words = plan, plan.job, place, words
        self.begun, self._spec, self._engine = self._begin(samples, loaded)
        self.feed: RankFeed | None = None
        self._first_step = 0

    def _begin(self, samples: int, loaded: StreamState | None) -> tuple[StartedSession, TokenizerSpec, str]:
        """Begin the session: the first rank reads the files and decides; all get its decision, or its error."""
        answer: list[Any] = [None]
        if torch.distributed.get_rank() == 0:
            try:
                answer = [self._decide(samples, loaded)]
            except NemolaunchError as error:
                answer = [error]
        torch.distributed.broadcast_object_list(answer)
        if isinstance(answer[0], NemolaunchError):
            raise answer[0]
        found: tuple[StartedSession, TokenizerSpec, str] = answer[0]
        return found

    def _decide(self, samples: int, loaded: StreamState | None) -> tuple[StartedSession, TokenizerSpec, str]:
        run = self._plan.run
        trusted = self._job.model.trust_remote_code
        spec = resolve(str(run.tokenizer), run.stream, trust_remote_code=trusted)
        begun = session.begin(
            run,
            self._job,
            StreamSpec.from_values(self._plan.stream or {}),
            tokenizer=spec.digest,
            data_parallel_size=self._place.ranks,
            samples=samples,
            state=loaded,
            say=log.info,
        )
        engine = proof.choose("auto", spec, run.stream, lambda: _sample(begun.setup.manifest), log.info)
        return begun, spec, engine

    def train_feed(self, step: int) -> RankFeed:
        """Return the feed of this rank's training samples.

        Args:
            step: optimizer steps done before, over all attempts of the run.
        """
        readers, batch = self.begun.state.readers, self._job.batch
        self._first_step = step
        self.feed = RankFeed(
            self._work(self.begun.setup, [readers[number] for number in self._readers()]),
            num_workers=self._job.data.num_workers,
            most_samples_a_step=batch.global_batch_size // self._place.ranks,
            micro_batch_size=batch.micro_batch_size,
            fed=self._fed_file() if self._job.stream.data_ledger else None,
        )
        return self.feed

    def validation_feed(self, micro_batches: int) -> ValidationFeed:
        """Return the feed of this rank's validation samples, that many micro batches in each validation."""
        setup = self.begun.validation
        count = (HEADER + PER_SOURCE * len(setup.manifest.sources),)
        beginning = ReaderState.unpack(np.zeros(count, np.int64).tolist())
        return ValidationFeed(
            self._work(setup, [beginning] * len(self._readers())),
            num_workers=self._job.data.num_workers,
            batches=micro_batches,
            micro_batch_size=self._job.batch.micro_batch_size,
        )

    def _readers(self) -> tuple[int, ...]:
        """Return the numbers of this rank's readers."""
        return tuple(range(self._place.rank, len(self.begun.state.readers), self._place.ranks))

    def _fed_file(self) -> ledger.FedFile | None:
        """Return the ledger of this data-parallel rank, written by the first process of each model replica."""
        if not self._place.is_first:
            return None
        return ledger.FedFile(ledger.fed_path(self._plan.run, self.begun.session.number, self._place.rank))

    def _work(self, setup: Any, states: list[ReaderState]) -> Work:
        return Work(
            setup=setup,
            readers=self._readers(),
            states=tuple(states),
            spec=self._spec,
            engine=self._engine,
            fields=self._fields(setup.rules.validation),
        )

    def _fields(self, validation: bool) -> Fields:
        if self._job.objective.objective != "mlm":
            if not are_marked(self._job):
                return next_token
            data = self._job.data
            return DocumentFields(
                self._spec.eod_id,
                separate=data.reset_attention_mask,
                restart=data.reset_position_ids,
                mask_loss=data.eod_mask_loss,
            )
        bert = self._plan.model_row.architecture.kind == "bert"
        return MaskedTokens(masking_of(self._plan, self._words), validation=validation, bert=bert)

    def samples_of_step(self, step: int) -> int:
        """Return how many samples this rank takes in the step after that many."""
        return self._plan.batch_sizes.size(step) // self._place.ranks

    def state(self, step: int, device: torch.device) -> dict[str, Any]:
        """Return the state of all readers of all ranks after that many steps. A collective of data-parallel ranks.

        Raises:
            NemolaunchError: the trainer has taken samples beyond the last complete step, which the states describe.
        """
        assert self.feed is not None
        self._check_taken(step)
        mine = torch.from_numpy(self.feed.states()).to(device)
        parts = [torch.empty_like(mine) for _ in range(self._place.ranks)]
        torch.distributed.all_gather(parts, mine, group=self._place.group)
        # reader r is the r // ranks-th of rank r % ranks
        table = torch.stack(parts, dim=1).flatten(0, 1).cpu()
        return {**self.begun.state.as_values(), "readers": table}

    def _check_taken(self, step: int) -> None:
        """Check this on the ranks that record samples: inner pipeline stages may have taken none."""
        if not self._place.is_first:
            return
        assert self.feed is not None
        counted = self._plan.batch_sizes.samples
        expected = (counted(step) - counted(self._first_step)) // self._place.ranks
        if self.feed.taken != expected:
            raise NemolaunchError(
                f"{self.feed.taken} samples were taken in {step - self._first_step} steps instead of {expected}"
            )


def _sample(manifest: Manifest) -> list[str]:
    """Return some texts of the stream, to try a tokenising engine on."""
    from nemolaunch.stream.order import FileShare
    from nemolaunch.stream.rows import open_rows

    texts: list[str] = []
    for listed in manifest.sources:
        rows = open_rows(listed.source, listed.files[0])
        for row, _ in zip(rows.read(FileShare(0, 0, 1), None, 0), range(64), strict=False):
            texts += [text[:20_000] for text in row.texts]
        rows.close()
    return texts
