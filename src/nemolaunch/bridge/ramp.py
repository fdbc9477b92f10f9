"""Steps whose batch size differs: samples are counted and batches are sized by the plan.

Bridge's own field, `rampup_batch_size`, does nothing: Megatron-Core 0.19 ignores it, and trains full batches.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from megatron.bridge.data import loaders
from megatron.bridge.training import train
from megatron.bridge.training.callbacks import Callback, CallbackContext
from megatron.core.num_microbatches_calculator import (
    get_current_global_batch_size,
    reconfigure_num_microbatches_calculator,
)

from nemolaunch.arithmetic.ramp import BatchSizes
from nemolaunch.planning import Plan
from nemolaunch.ranks.log import log


class PlannedBatches(Callback):
    """Sets the number of micro batches of each step.

    Between steps it is that of the full batch: where it changes, Bridge's loop saves a checkpoint, or ends if it falls.

    Attributes:
        sizes: the batch size of each step.
    """

    def __init__(self, plan: Plan) -> None:
        self.sizes: BatchSizes = plan.batch_sizes
        self._micro = plan.job.batch.micro_batch_size
        self._ranks = plan.data_parallel_size

    def install(self) -> None:
        """Have the training data built with as many samples as are read, and the loop leave the batch size alone."""
        if self.sizes.constant:
            return
        wanted = loaders.get_train_valid_test_num_samples

        def exactly(config: Any) -> tuple[int, int, int]:
            # Bridge counts full batches; more samples than are read could mean an epoch more to shuffle
            return (self.sizes.samples(config.train.train_iters), *wanted(config)[1:])

        loaders.get_train_valid_test_num_samples = exactly
        train.update_num_microbatches = lambda *consumed, **options: self._set(self.sizes.full)

    def on_train_start(self, context: CallbackContext) -> None:
        """Continue at the sample that the checkpoint has recorded, should the plan not have known it."""
        state = context.state.train_state
        step, read = state.step, state.consumed_train_samples
        if self.sizes.samples(step) != read:
            log.info(f"the checkpoint of step {step} has consumed {read} samples, so reading goes on there")
            self.sizes = dataclasses.replace(self.sizes, done_steps=step, done_samples=read)

    def on_train_step_start(self, context: CallbackContext) -> None:
        """Set the batch size of the step."""
        self._set(self.sizes.size(context.state.train_state.step))

    def _set(self, size: int) -> None:
        if size != get_current_global_batch_size():
            # a rank other than 0 does not log the change
            reconfigure_num_microbatches_calculator(-1, None, size, self._micro, self._ranks)
