"""The speed of matrix products and of all-reduces on this rank's device."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

COLLECTIVE_TIMEOUT = timedelta(seconds=120)
WARM_UP, REPEATS = 2, 5


@dataclass(frozen=True)
class Device:
    """What a rank computes on, and how much work is enough to measure it.

    Attributes:
        size, batch: of the matrices, and products between two looks at the clock.
        seconds: how long to multiply; a GPU heats up and reaches its power limit meanwhile.
        reduce_bytes: of an all-reduce; enough for the bandwidth to count, and not the latency.
    """

    torch_device: torch.device
    name: str
    backend: str
    dtype: torch.dtype
    size: int
    batch: int
    seconds: float
    reduce_bytes: int

    def wait(self) -> None:
        """Wait until the device has done what it was given."""
        if self.torch_device.type == "cuda":
            torch.cuda.synchronize(self.torch_device)


def device_of(kind: str, local_rank: int, num_local: int) -> Device:
    """Return the GPU of this rank, or its share of the CPUs.

    Args:
        kind: `gpu` or `cpu`.
        num_local: ranks on this node.
    """
    if kind == "cpu":
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // num_local))
        return Device(torch.device("cpu"), "cpu", "gloo", torch.float32, 512, 1, 1.0, 8 << 20)
    device = torch.device("cuda", local_rank % max(1, torch.cuda.device_count()))
    torch.cuda.set_device(device)
    name = torch.cuda.get_device_name(device)
    return Device(device, name, "nccl", torch.bfloat16, 8192, 16, 3.0, 256 << 20)


def products(device: Device) -> float:
    """Return the FLOP/s of matrix products over some seconds: a throttled GPU begins fast.

    The mean, which includes the pauses of a rank whose CPU or GPU also does something else.
    """
    size = device.size
    left = torch.randn(size, size, device=device.torch_device, dtype=device.dtype)
    right = torch.randn(size, size, device=device.torch_device, dtype=device.dtype)
    out = torch.empty(size, size, device=device.torch_device, dtype=device.dtype)

    def multiply() -> None:
        for _ in range(device.batch):
            torch.matmul(left, right, out=out)

    for _ in range(WARM_UP):
        _timed(device, multiply)
    times: list[float] = []
    end = time.perf_counter() + device.seconds
    while len(times) < REPEATS or time.perf_counter() < end:
        times.append(_timed(device, multiply))
    return float(2 * size**3 * device.batch / statistics.fmean(times))


def _timed(device: Device, work: Callable[[], object]) -> float:
    device.wait()
    start = time.perf_counter()
    work()
    device.wait()
    return time.perf_counter() - start


def all_reduce(device: Device, group: Any) -> float | None:
    """Return the bus bandwidth of an all-reduce in bytes per second; None in a group of one rank.

    Bus bandwidth is bytes / seconds · 2 (n - 1) / n, which does not depend on the number of ranks
    (https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md).
    """
    ranks = dist.get_world_size(group)
    if ranks == 1:
        return None
    values = torch.ones(device.reduce_bytes // 4, dtype=torch.float32, device=device.torch_device)
    times = []
    for _ in range(WARM_UP + REPEATS):
        values.fill_(1.0)
        times.append(_timed(device, lambda: dist.all_reduce(values, group=group)))
    if not bool((values == ranks).all()):
        raise ArithmeticError(f"an all-reduce of ones over {ranks} ranks is not {ranks} everywhere")
    return 2 * (ranks - 1) / ranks * device.reduce_bytes / statistics.median(times[WARM_UP:])


def group_of(device: Device, ranks: list[int]) -> Any:
    """Return a process group of these ranks; only they call this."""
    return dist.new_group(
        ranks, timeout=COLLECTIVE_TIMEOUT, backend=device.backend, use_local_synchronization=True
    )


def rounds(num_nodes: int) -> list[list[tuple[int, int]]]:
    """Return pairs of neighbours in a ring of nodes, in rounds in which each node is in at most one pair."""
    if num_nodes < 2:
        return []
    edges = [(i, (i + 1) % num_nodes) for i in range(num_nodes if num_nodes > 2 else 1)]
    last = edges.pop() if num_nodes % 2 and num_nodes > 2 else None
    found = [edges[0::2], edges[1::2], [last] if last else []]
    return [pairs for pairs in found if pairs]
