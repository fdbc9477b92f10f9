"""The speed of a run: FLOP/s compared with the peak of its GPUs, and where the time of a step goes."""

from __future__ import annotations

import resource
import statistics
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from nemolaunch import catalogue
from nemolaunch.arithmetic import FlopsPerToken, flops_per_token, model_vocab_rows
from nemolaunch.errors import NemolaunchError
from nemolaunch.planning import Plan

RECENT_STEPS = 100  # steps that percentiles are computed over


@dataclass(frozen=True, kw_only=True)
class Compute:
    """Converts tokens per second to TFLOP/s per GPU and model FLOPs utilisation.

    Attributes:
        flops: per token, by both conventions; None for models without a formula.
        peak_flops: dense FLOP/s of one GPU in the precision of the matrix products; None on a CPU or an
            unknown GPU.
    """

    flops: FlopsPerToken | None
    peak_flops: float | None
    world_size: int

    def figures(self, tokens_per_s: float) -> dict[str, float]:
        """Return `tflops_per_gpu` and `mfu`, counting full attention, and both with `_causal`."""
        if self.flops is None:
            return {}
        found: dict[str, float] = {}
        counts = {"": self.flops.full, "_causal": self.flops.causal}
        if self.flops.causal == self.flops.full:
            del counts["_causal"]
        for suffix, flops in counts.items():
            each = tokens_per_s * flops / self.world_size
            found["tflops_per_gpu" + suffix] = each / 1e12
            if self.peak_flops:
                found["mfu" + suffix] = each / self.peak_flops
        return found


def compute_of(plan: Plan, tokenizer_vocab_size: int | None) -> Compute:
    """Return the plan's compute on the GPU of this process."""
    model = plan.model_row
    rows, _ = model_vocab_rows(model, tokenizer_vocab_size, plan.job.parallelism.tensor_model_parallel_size)
    try:
        both_sides = plan.job.objective.objective == "mlm"
        flops = flops_per_token(model.architecture, rows, plan.seq_length, both_sides=both_sides)
    except ValueError:
        flops = None
    return Compute(flops=flops, peak_flops=_peak(plan), world_size=plan.world_size)


def _peak(plan: Plan) -> float | None:
    if plan.device != "gpu" or not torch.cuda.is_available():
        return None
    try:
        gpu = catalogue.gpu(torch.cuda.get_device_name())
    except NemolaunchError:
        return None
    if plan.job.batch.fp8:
        return gpu.peak_fp8
    by_precision = {"bf16": gpu.peak_bf16, "fp16": gpu.peak_fp16, "fp32": gpu.peak_tf32}
    return by_precision.get(plan.job.batch.precision.split("-")[0])


class StepClock:
    """Measures the durations of steps, without the time for validating and saving between them."""

    def __init__(self) -> None:
        self._end = time.perf_counter()
        self._paused_s = 0.0
        self._pause_began: float | None = None
        self._durations: list[float] = []
        self._recent: deque[float] = deque(maxlen=RECENT_STEPS)

    def pause(self) -> None:
        """Pause the clock for something that is not part of a step."""
        if self._pause_began is None:
            self._pause_began = time.perf_counter()

    def resume(self) -> float:
        """Resume the clock. Return the seconds it was paused."""
        if self._pause_began is None:
            return 0.0
        seconds = time.perf_counter() - self._pause_began
        self._pause_began = None
        self._paused_s += seconds
        return seconds

    def step(self) -> None:
        """Record the end of a step."""
        now = time.perf_counter()
        seconds = now - self._end - self._paused_s
        self._durations.append(seconds)
        self._recent.append(seconds)
        self._end, self._paused_s = now, 0.0

    def take(self) -> dict[str, float]:
        """Return seconds per step: `step_time_s`, the mean since the last call, and percentiles of the last 100."""
        durations, self._durations = self._durations, []
        if not durations:
            return {}
        ordered = sorted(self._recent)
        last = len(ordered) - 1
        return {
            "step_time_s": statistics.fmean(durations),
            "step_time_p50_s": ordered[round(last * 0.5)],
            "step_time_p95_s": ordered[round(last * 0.95)],
            "step_time_max_s": ordered[last],
        }


class TimedIterator:
    """An iterator that counts the seconds spent waiting for batches."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.waited_s = 0.0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        start = time.perf_counter()
        try:
            return next(self.inner)
        finally:
            self.waited_s += time.perf_counter() - start

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def timed_data(trainer: Any) -> TimedIterator | None:
    """Wrap the iterator from which the trainer gets batches, and return it; None if there is none."""
    fetcher = trainer.fit_loop._data_fetcher
    if fetcher is None:
        return None
    if not isinstance(fetcher.iterator, TimedIterator):
        fetcher.iterator = TimedIterator(fetcher.iterator)
    return fetcher.iterator


def memory_peak_bytes() -> int:
    """Return this rank's peak memory: allocated on the GPU, or resident in the process without one."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def environment() -> dict[str, str]:
    """Return the versions and hardware of this rank, for the metrics file."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version(), "host": platform.node()}
    packages = (
        "nemolaunch",
        "nemo_toolkit",
        "megatron-bridge",
        "megatron-core",
        "nemo_run",
        "torch",
        "transformer_engine",
        "lightning",
    )
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
        found["cuda"] = str(torch.version.cuda)
    return found
