"""Profilers with Bridge. Nsight Systems, which starts the processes, is told by Bridge itself which steps to record."""

from __future__ import annotations

import torch
from megatron.bridge.training.callbacks import Callback, CallbackContext
from megatron.bridge.training.config import ProfilingConfig

from nemolaunch.job.profiling import steps_of
from nemolaunch.planning import Plan


def nsys(plan: Plan) -> ProfilingConfig | None:
    """Return Bridge's configuration of Nsight Systems; None if the job does not use it."""
    logging = plan.job.logging
    if logging.profile != "nsys":
        return None
    start, stop = steps_of(logging.profile_steps)
    return ProfilingConfig(
        use_nsys_profiler=True,
        profile_step_start=start,
        profile_step_end=stop,
        profile_ranks=[int(rank) for rank in logging.profile_ranks],
        nvtx_ranges=plan.device == "gpu",
    )


class PytorchTrace(Callback):
    """Records steps of this rank with torch's profiler, where NeMo's callback writes its traces.

    Bridge's own writes them among TensorBoard's files.
    """

    def __init__(self, plan: Plan) -> None:
        self._start, self._stop = steps_of(plan.job.logging.profile_steps)
        self._ranks, self._folder = plan.job.logging.profile_ranks, plan.run.traces / "device"
        activities = [torch.profiler.ProfilerActivity.CPU]
        activities += [torch.profiler.ProfilerActivity.CUDA] if plan.device == "gpu" else []
        self._profiler = torch.profiler.profile(activities=activities)
        self._is_on = False

    def on_train_step_start(self, context: CallbackContext) -> None:
        """Start after `start` steps."""
        mine = str(torch.distributed.get_rank()) in self._ranks
        if mine and context.state.train_state.step == self._start:
            self._profiler.start()
            self._is_on = True

    def on_train_step_end(self, context: CallbackContext) -> None:
        """Write the trace after `stop` steps."""
        if self._is_on and context.state.train_state.step + 1 == self._stop:
            self._write()

    def on_train_end(self, context: CallbackContext) -> None:
        """Write what was recorded, if the run ends before."""
        if self._is_on:
            self._write()

    def _write(self) -> None:
        self._is_on = False
        self._profiler.stop()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._profiler.export_chrome_trace(str(self._folder / f"rank-{torch.distributed.get_rank()}.json"))
