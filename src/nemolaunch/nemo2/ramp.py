"""Steps whose batch size differs: samples are counted and batches are sized by the plan.

NeMo has a ramp of its own, which cannot be used: it ends the training wherever the batch size changes
(`on_megatron_microbatches_start` sets `should_stop`), and counts the samples of the first step too late, so that a
resumed run would read samples twice.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from megatron.core import parallel_state
from megatron.core.num_microbatches_calculator import reconfigure_num_microbatches_calculator
from nemo.lightning.pytorch.plugins import MegatronDataSampler

from nemolaunch.arithmetic.ramp import BatchSizes
from nemolaunch.planning import Plan
from nemolaunch.ranks.log import log


class RampedSampler(MegatronDataSampler):
    """NeMo's sampler with the batch sizes of the plan.

    Outside of training steps Megatron's number of micro batches is that of the full batch, so validation does not
    depend on the ramp.

    Attributes:
        sizes: the batch size of each step.
    """

    def __init__(self, sizes: BatchSizes, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sizes = sizes

    def transform_dataloader(self, dataloader: Any, consumed_samples: int = 0) -> Any:
        """Wrap the data loader as NeMo does; its length is counted in samples, not in full batches."""
        loader = super().transform_dataloader(dataloader, consumed_samples)
        if getattr(dataloader, "mode", "train") == "train":
            self.begin()
            loader.batch_sampler.global_batch_size = None
        return loader

    def begin(self) -> None:
        """Continue at the sample that the checkpoint has recorded, should the plan not have known it."""
        step, read = self.init_global_step, int(self.init_consumed_samples)
        if self.sizes.samples(step) != read:
            log.info(f"the checkpoint of step {step} has consumed {read} samples, so reading goes on there")
            self.sizes = BatchSizes(
                full=self.sizes.full, ramp=self.sizes.ramp, done_steps=step, done_samples=read
            )

    def compute_consumed_samples(self, steps_since_resume: int = 0) -> int:
        """Return the samples consumed since training began."""
        return self.sizes.samples(self.init_global_step + steps_since_resume)

    def on_megatron_step_start(self, step: Any) -> Any:
        """Set the number of micro batches of a training step."""
        if not step.forward_only:
            self._set(self.sizes.size(int(self.trainer.global_step)))
        return super().on_megatron_step_start(step)

    def on_megatron_step_end(self, step: Any) -> None:
        """Log the samples consumed and the batch size of a training step, and return to the full batch size."""
        if not step.forward_only:
            super().on_megatron_step_end(step)
            self._set(self.sizes.full)

    def _set(self, size: int) -> None:
        if size != self.current_global_batch_size:
            ranks = parallel_state.get_data_parallel_world_size()
            # a rank other than 0 does not log the change
            reconfigure_num_microbatches_calculator(-1, None, size, self.micro_batch_size, ranks)


def use_batch_sizes(data: Any, plan: Plan) -> None:
    """Have a built data module of NeMo follow the plan's batch sizes; checkpoints still record NeMo's own classes.

    Where all batches have one size, NeMo's own sampler stays. A stream has a module of its own, which knows the plan.
    """
    sizes = plan.batch_sizes
    if plan.stream is not None or sizes.constant:
        return
    sampler = data.data_sampler
    data.data_sampler = RampedSampler(
        sizes,
        seq_len=sampler.seq_len,
        micro_batch_size=sampler.micro_batch_size,
        global_batch_size=sampler.global_batch_size,
        dataloader_type=sampler.dataloader_type,
        output_log=sampler.output_log,
        decoder_seq_len=sampler.decoder_seq_len,
    )
    build = data.build

    def exactly(trainer_max_steps: int, *args: Any, **kwargs: Any) -> None:
        # NeMo multiplies by the full batch size; more samples than are read could mean an epoch more to shuffle
        build(Fraction(sizes.samples(trainer_max_steps), sizes.full), *args, **kwargs)

    data.build = exactly
