"""The data module of a run on streams. Checkpoints do not record it, so they load without nemolaunch."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from megatron.core import parallel_state
from megatron.core.num_microbatches_calculator import get_num_microbatches, update_num_microbatches

from nemolaunch.data.stream_spec import StreamSpec
from nemolaunch.errors import NemolaunchError
from nemolaunch.nemo2.ramp import RampedSampler
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


class Sampler(RampedSampler):
    """Counts samples and sizes batches, and leaves reading to the feed."""

    def transform_dataloader(self, dataloader: Any, consumed_samples: int = 0) -> Any:
        """Return the data loader unchanged."""
        return dataloader


class StreamDataModule(pl.LightningDataModule):
    """Replaces NeMo's data module, and keeps its tokenizer.

    It has no `__io__`, so that a checkpoint's context only names NeMo's classes.
    """

    def __init__(self, plan: Plan, tokenizer: Any) -> None:
        super().__init__()
        self._plan = plan
        self._job = job = plan.job
        self.tokenizer = tokenizer
        self.seq_length = plan.seq_length
        self.micro_batch_size = job.batch.micro_batch_size
        self.global_batch_size = job.batch.global_batch_size
        self.data_sampler = Sampler(
            plan.batch_sizes,
            seq_len=self.seq_length,
            micro_batch_size=self.micro_batch_size,
            global_batch_size=self.global_batch_size,
        )
        self._loaded: StreamState | None = None
        self._begun: StartedSession | None = None
        self._init_step = 0
        self._validation: ValidationFeed | None = None
        self.feed: RankFeed | None = None

    @property
    def begun(self) -> StartedSession:
        """The session; on first use, all ranks begin it together."""
        if self._begun is None:
            self._begun = self._begin()
        return self._begun

    def _begin(self) -> StartedSession:
        """Begin the session: the first rank reads the files and decides; all get its decision, or its error."""
        answer: list[Any] = [None]
        if torch.distributed.get_rank() == 0:
            try:
                answer = [self._decide()]
            except NemolaunchError as error:
                answer = [error]
        torch.distributed.broadcast_object_list(answer)
        if isinstance(answer[0], NemolaunchError):
            raise answer[0]
        begun, self._spec, self._engine = answer[0]
        return begun

    def _decide(self) -> tuple[StartedSession, TokenizerSpec, str]:
        run = self._plan.run
        trusted = self._job.model.trust_remote_code
        spec = resolve(str(run.tokenizer), run.stream, trust_remote_code=trusted)
        stream = StreamSpec.from_values(self._plan.stream or {})
        begun = session.begin(
            run,
            self._job,
            stream,
            tokenizer=spec.digest,
            data_parallel_size=parallel_state.get_data_parallel_world_size(),
            samples=int(self.data_sampler.init_consumed_samples),
            state=self._loaded,
            say=log.info,
        )
        engine = proof.choose("auto", spec, run.stream, lambda: _sample(begun.setup.manifest), log.info)
        return begun, spec, engine

    @property
    def _done(self) -> int:
        """Optimizer steps done, over all attempts of the run."""
        trainer: Any = self.trainer
        return int(trainer.global_step)

    def _readers(self) -> tuple[int, ...]:
        """Return the numbers of this rank's readers."""
        rank, ranks = parallel_state.get_data_parallel_rank(), parallel_state.get_data_parallel_world_size()
        return tuple(range(rank, len(self.begun.state.readers), ranks))

    def train_dataloader(self) -> RankFeed:
        """Return the feed of this rank's training samples."""
        begun, readers = self.begun, self._readers()
        self._init_step = self._done
        self.data_sampler.init_global_step = self._init_step
        self.data_sampler.begin()
        self.feed = RankFeed(
            self._work(begun.setup, [begun.state.readers[number] for number in readers]),
            num_workers=self._job.data.num_workers,
            most_samples_a_step=self.global_batch_size // parallel_state.get_data_parallel_world_size(),
            micro_batch_size=self.micro_batch_size,
            fed=self._fed_file() if self._job.stream.data_ledger else None,
        )
        return self.feed

    def _fed_file(self) -> ledger.FedFile | None:
        """Return the ledger of this data-parallel rank, written by the first process of each model replica."""
        first = parallel_state.get_tensor_model_parallel_rank() + parallel_state.get_context_parallel_rank()
        if first or not parallel_state.is_pipeline_first_stage(ignore_virtual=True):
            return None
        rank = parallel_state.get_data_parallel_rank()
        return ledger.FedFile(ledger.fed_path(self._plan.run, self.begun.session.number, rank))

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
        return MaskedTokens(masking_of(self._plan, self.tokenizer), validation=validation, bert=bert)

    def val_dataloader(self) -> ValidationFeed:
        """Return the feed of this rank's validation samples."""
        if self._validation is None:
            setup = self.begun.validation
            count = (HEADER + PER_SOURCE * len(setup.manifest.sources),)
            beginning = ReaderState.unpack(np.zeros(count, np.int64).tolist())
            self._validation = ValidationFeed(
                self._work(setup, [beginning] * len(self._readers())),
                num_workers=self._job.data.num_workers,
                batches=self._job.logging.limit_val_batches * get_num_microbatches(),
                micro_batch_size=self.micro_batch_size,
            )
        return self._validation

    def reconfigure_limit_batches(self) -> None:
        """Convert the limit to micro batches, which Lightning counts, as NeMo's own data modules do."""
        trainer: Any = self.trainer
        trainer.limit_val_batches *= get_num_microbatches()

    def state_dict(self) -> dict[str, Any]:
        """Return the samples consumed; `StreamWatch` adds the stream's state when a checkpoint is saved."""
        steps = self._done - self._init_step
        return {"consumed_samples": self.data_sampler.compute_consumed_samples(steps)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the samples consumed and the stream's state."""
        consumed = state_dict["consumed_samples"]
        self.data_sampler.init_consumed_samples = consumed
        self.data_sampler.prev_consumed_samples = consumed
        update_num_microbatches(consumed_samples=consumed, consistency_check=False)
        self.data_sampler.if_first_step = 1
        if "stream" in state_dict:
            self._loaded = StreamState.from_values(state_dict["stream"])

    def prepare(self) -> None:
        """Wait for this rank's samples of the next step."""
        assert self.feed is not None
        size = self.data_sampler.sizes.size(self._done)
        self.feed.prepare(size // parallel_state.get_data_parallel_world_size())

    def stream_state(self) -> dict[str, Any]:
        """Return the state of all readers of all ranks. A collective over the data-parallel group."""
        feed, begun = self.feed, self.begun
        assert feed is not None
        trainer: Any = self.trainer
        mine = torch.from_numpy(feed.states()).to(trainer.strategy.root_device)
        parts = [torch.empty_like(mine) for _ in range(parallel_state.get_data_parallel_world_size())]
        torch.distributed.all_gather(parts, mine, group=parallel_state.get_data_parallel_group())
        table = (
            torch.stack(parts, dim=1).flatten(0, 1).cpu()
        )  # reader r is the r // ranks-th of rank r % ranks
        return {**begun.state.as_values(), "readers": table}

    def check_taken(self) -> None:
        """Check that the trainer has taken no samples beyond the last complete step, which the states describe."""
        assert self.feed is not None
        steps, counted = self._done - self._init_step, self.data_sampler.sizes.samples
        read = counted(self._done) - counted(self._init_step)
        expected = read // parallel_state.get_data_parallel_world_size()
        if self.feed.taken != expected:
            raise NemolaunchError(
                f"{self.feed.taken} samples were taken in {steps} steps instead of {expected}"
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
