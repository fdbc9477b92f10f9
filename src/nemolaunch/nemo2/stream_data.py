"""The data module of a run on streams. Checkpoints do not record it, so they load without nemolaunch."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from megatron.core import parallel_state
from megatron.core.num_microbatches_calculator import get_num_microbatches, update_num_microbatches

from nemolaunch.nemo2.ramp import RampedSampler
from nemolaunch.planning import Plan
from nemolaunch.ranks.stream_feed import RankFeed, ValidationFeed
from nemolaunch.ranks.stream_source import Place, StreamSource
from nemolaunch.stream.state import StreamState


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
        self._source: StreamSource | None = None
        self._init_step = 0
        self._validation: ValidationFeed | None = None

    @property
    def source(self) -> StreamSource:
        """The stream; on first use, all ranks begin its session together."""
        if self._source is None:
            self._source = StreamSource(
                self._plan,
                Place.of(parallel_state),
                self.tokenizer.tokenizer,
                samples=int(self.data_sampler.init_consumed_samples),
                loaded=self._loaded,
            )
        return self._source

    @property
    def _done(self) -> int:
        """Optimizer steps done, over all attempts of the run."""
        trainer: Any = self.trainer
        return int(trainer.global_step)

    def train_dataloader(self) -> RankFeed:
        """Return the feed of this rank's training samples."""
        self._init_step = self._done
        self.data_sampler.init_global_step = self._init_step
        self.data_sampler.begin()
        return self.source.train_feed(self._init_step)

    def val_dataloader(self) -> ValidationFeed:
        """Return the feed of this rank's validation samples."""
        if self._validation is None:
            batches = self._job.logging.limit_val_batches * get_num_microbatches()
            self._validation = self.source.validation_feed(batches)
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
