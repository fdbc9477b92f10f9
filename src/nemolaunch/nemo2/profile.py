"""Profilers: NeMo's callbacks in the training processes, and NeMo-Run's plugin that starts them under nsys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import nemo_run as run

from nemolaunch.job.profiling import nsys_file, steps_of
from nemolaunch.planning import Plan

if TYPE_CHECKING:
    from lightning.pytorch import Callback


@dataclass(kw_only=True)
class NsysUnderNemoRun(run.Plugin):
    """Starts the processes under Nsight Systems, which waits for the callback before it records.

    Like NeMo's own plugin, but without importing NeMo, and with the reports in the run folder.
    """

    plan: Plan

    def setup(self, task: Any, executor: run.Executor) -> None:
        """Configure the executor's launcher."""
        launcher = executor.get_launcher()
        launcher.nsys_profile = True
        launcher.nsys_folder = str(self.plan.run.traces)
        launcher.nsys_filename = nsys_file(self.plan.submission is not None)


def plugins(plan: Plan) -> list[run.Plugin]:
    """Return the NeMo-Run plugins for the task of a plan."""
    return [NsysUnderNemoRun(plan=plan)] if plan.job.logging.profile == "nsys" else []


def callbacks(plan: Plan, rank: int) -> list[Callback]:
    """Return NeMo's profiler callback for this rank, if it is to be profiled."""
    kind = plan.job.logging.profile
    if kind is None or str(rank) not in plan.job.logging.profile_ranks:
        return []
    start, stop = steps_of(plan.job.logging.profile_steps)
    plan.run.traces.mkdir(parents=True, exist_ok=True)
    if kind == "nsys":
        from nemo.lightning.pytorch.callbacks import NsysCallback

        return [NsysCallback(start_step=start, end_step=stop, ranks=[rank], nvtx_ranges=plan.device == "gpu")]
    from nemo.lightning.pytorch.callbacks import PytorchProfilerCallback
    from torch.profiler import ProfilerActivity

    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if plan.device == "gpu" else [])
    return [
        PytorchProfilerCallback(
            start_step=start,
            end_step=stop,
            active_steps=stop - start,
            trace_dir=str(plan.run.traces),
            profiler_kwargs={"activities": activities},
        )
    ]
