"""Compare predicted with measured memory, over configurations that use it differently.

The measurement is the peak of what PyTorch's allocator has handed out. It does not include the overhead (CUDA
context, fragmentation), so that part of the estimate is not compared. Every other configuration calibrates
factors for the components that are estimated rather than counted, such as activations and logits; the rest
tests those factors.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import runs
from bench import Bench, Failed, Row

from steps.throughput import gpu_bytes, planned

STEPS = 3
TOGETHER = 4  # concurrent jobs; their peaks do not affect each other
SHARE = 0.8  # of the GPU's memory that concurrent jobs may be predicted to take

FULL = {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}
BLOCK = {"recompute_granularity": "full", "recompute_method": "block", "recompute_num_layers": 8}
OFFLOAD = {"cpu_offloading": True, "cpu_offloading_layers": 8, "cpu_offloading_activations": True}
ONE, EIGHT = ("llama32_1b", None), ("llama31_8b", 4)
# (name, model and its layers, flags); neighbours differ, so that each half covers every kind
CONFIGURATIONS: list[tuple[str, tuple[str, int | None], dict[str, Any]]] = [
    ("8192 mbs 1", ONE, {}),
    ("2048 mbs 1", ONE, {"seq_length": 2048}),
    ("2048 mbs 4", ONE, {"seq_length": 2048, "micro_batch_size": 4}),
    ("2048 mbs 8", ONE, {"seq_length": 2048, "micro_batch_size": 8}),
    ("8192 mbs 2, full recompute", ONE, {"micro_batch_size": 2, **FULL}),
    ("8192 mbs 2, block recompute", ONE, {"micro_batch_size": 2, **BLOCK}),
    ("8192 mbs 1, selective", ONE, {"recompute_granularity": "selective"}),
    ("2048 mbs 4, selective", ONE, {"seq_length": 2048, "micro_batch_size": 4, "recompute_granularity": "selective"}),
    ("8192 mbs 1, fp8", ONE, {"fp8": True}),
    ("2048 mbs 4, fp8", ONE, {"seq_length": 2048, "micro_batch_size": 4, "fp8": True}),
    ("4096 mbs 1, plain optimizer", ONE, {"seq_length": 4096, "disable_dist_optim": True}),
    ("4096 mbs 2, plain optimizer", ONE, {"seq_length": 4096, "micro_batch_size": 2, "disable_dist_optim": True}),
    ("4096 mbs 2, 8 layers offloaded", ONE, {"seq_length": 4096, "micro_batch_size": 2, **OFFLOAD}),
    ("8 B, 4 layers, 8192 mbs 1", EIGHT, {}),
    ("8192 mbs 1, optimizer offloaded", ONE, {"optim_cpu_offloading": True}),
    ("8 B, 4 layers, 8192 mbs 1, full recompute", EIGHT, FULL),
]  # fmt: skip


def rows(bench: Bench) -> list[Row]:
    """Return one row per configuration; the first one taken starts them all, some at a time."""
    chosen = [c for c in CONFIGURATIONS if not bench.tiny or c[0] in TINY]
    crowd = Crowd(bench, chosen)
    return [Row(name, f"{model[0]}, {flags or 'as it is'}", functools.partial(crowd.result, name))
            for name, model, flags in chosen]  # fmt: skip


TINY = ("8192 mbs 1", "2048 mbs 4", "8192 mbs 2, full recompute", "2048 mbs 1")


class Crowd:
    """Runs the configurations in threads, as many at a time as are predicted to fit on the GPU."""

    def __init__(
        self, bench: Bench, chosen: list[tuple[str, tuple[str, int | None], dict[str, Any]]]
    ) -> None:
        self.bench = bench
        self.chosen = {name: (model, flags) for name, model, flags in chosen}
        self.room = SHARE * gpu_bytes(bench)
        self.free = threading.Condition()
        self.futures: dict[str, Any] = {}
        self.pool = ThreadPoolExecutor(1 if bench.tiny else TOGETHER)

    def result(self, name: str) -> dict[str, Any]:
        """Return the result of a configuration, and start all of them on the first call."""
        if not self.futures:
            runs.data(self.bench)  # once, before the threads ask for it
            for each in self.chosen:
                self.futures[each] = self.pool.submit(self._take, each)
        found: dict[str, Any] = self.futures[name].result()
        return found

    def _take(self, name: str) -> dict[str, Any]:
        (recipe, layers), changes = self.chosen[name]
        flags = job_flags(self.bench, recipe, layers, changes)
        parts = predicted(self.bench, flags)
        need = min(sum(parts.values()), self.room)
        return self._with_room(need, lambda: self._measured(name, flags, parts))

    def _with_room(self, need: float, job: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        with self.free:
            self.free.wait_for(lambda: self.room >= need)
            self.room -= need
        try:
            return job()
        finally:
            with self.free:
                self.room += need
                self.free.notify_all()

    def _measured(self, name: str, flags: dict[str, Any], parts: dict[str, int]) -> dict[str, Any]:
        run = "memory-" + "".join(c if c.isalnum() else "-" for c in name)
        taken = runs.pretrain(self.bench, run, flags, stop_at=STEPS)
        measured = max(row["memory_peak_bytes"] for row in taken)
        total = sum(parts.values())
        return {
            "predicted": parts,
            "predicted_bytes": total,
            "measured_bytes": measured,
            "relative_error": total / measured - 1,
        }


def job_flags(bench: Bench, recipe: str, layers: int | None, changes: dict[str, Any]) -> dict[str, Any]:
    """Return the flags of a configuration, with shorter sequences and fewer layers for tiny shapes."""
    length = runs.seq_length(bench, changes.get("seq_length", 8192))
    changes = {**changes, "seq_length": length, "global_batch_size": changes.get("micro_batch_size", 1) * 2}
    return runs.base_flags(bench, runs.model(bench, recipe, layers), **changes)


def predicted(bench: Bench, flags: dict[str, Any]) -> dict[str, int]:
    """Return the predicted bytes by component, without overhead."""
    plan = planned(bench, flags)
    if plan.estimate is None or plan.estimate.memory is None:
        raise Failed("this job has no estimate")
    return {k: v for k, v in plan.estimate.memory.components().items() if k != "overhead"}


def summary(taken: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the errors, and those of the second half with factors fitted to the first."""
    found: dict[str, Any] = {"errors": described([row["relative_error"] for row in taken])}
    fit, test = taken[0::2], taken[1::2]
    if len(fit) >= len(ESTIMATED) and test:
        factors = fitted(fit)
        rest = [_with(factors, row) / row["measured_bytes"] - 1 for row in test]
        found |= {
            "factors": factors,
            "fitted_on": [r["name"] for r in fit],
            "errors_of_the_rest": described(rest),
        }
    return found


ESTIMATED = ("activations", "logits", "workspace")  # what is estimated; the others are counted


def fitted(rows_: list[dict[str, Any]]) -> dict[str, float]:
    """Return the factors of the estimated components with the least squares of relative errors."""
    matrix = np.array([[row["predicted"][c] / row["measured_bytes"] for c in ESTIMATED] for row in rows_])
    counted = np.array(
        [
            sum(v for k, v in row["predicted"].items() if k not in ESTIMATED) / row["measured_bytes"]
            for row in rows_
        ]
    )
    prior = np.eye(len(ESTIMATED)) * 0.01  # towards 1 where the rows do not determine a factor
    a = np.vstack([matrix, prior])
    b = np.concatenate([1 - counted, np.full(len(ESTIMATED), 0.01)])
    solution = np.linalg.lstsq(a, b, rcond=None)[0]
    return {name: round(float(value), 3) for name, value in zip(ESTIMATED, solution, strict=True)}


def _with(factors: dict[str, float], row: dict[str, Any]) -> float:
    return float(sum(v * factors.get(k, 1.0) for k, v in row["predicted"].items()))


def described(errors: list[float]) -> dict[str, float]:
    """Return count, mean and maximum of the absolute relative errors."""
    sizes = [abs(error) for error in errors]
    return {"count": len(sizes), "mean": sum(sizes) / len(sizes), "largest": max(sizes)}
