"""Compare the ranks of a job with each other periodically, whichever framework trains it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

import torch

from nemolaunch.ranks.guards import Notice, Pace, RankGuard

EVERY_STEPS = 50
# side length of the matrices and number of multiplications per measurement: takes milliseconds on either device
ON_GPU = (2048, 20)
ON_CPU = (192, 10)
MEASUREMENTS = 5


class RankComparison:
    """Compares the time that each rank takes for a small matrix multiplication, every 50 steps.

    This costs a few milliseconds per 50 steps, and one all-gather of three numbers per rank.
    """

    def __init__(self, notice: Callable[[Notice, int], None]) -> None:
        self._notice = notice
        self._guard = RankGuard()
        self._waited_s = 0.0
        self._hosts: list[str] = []

    def start(self) -> None:
        """Gather the hosts of all ranks. A collective."""
        self._since = time.perf_counter()
        hosts: list[Any] = [None] * torch.distributed.get_world_size()
        if len(hosts) > 1:
            torch.distributed.all_gather_object(hosts, socket.gethostname())
        self._hosts = hosts

    def step(self, step: int, waited_s: float, device: torch.device) -> None:
        """Compare the ranks, every 50 steps. A collective.

        Args:
            waited_s: seconds that this rank has waited for data since its start.
        """
        if len(self._hosts) == 1 or step % EVERY_STEPS:
            return
        steps_s = time.perf_counter() - self._since
        own = torch.tensor(
            [probe(device), (waited_s - self._waited_s) / EVERY_STEPS, steps_s / EVERY_STEPS],
            dtype=torch.float32,
            device=device,
        )
        self._waited_s = waited_s
        found = [torch.empty_like(own) for _ in self._hosts]
        torch.distributed.all_gather(found, own)
        self._since = time.perf_counter()
        if torch.distributed.get_rank() == 0:
            figures = torch.stack(found).tolist()
            paces = [Pace(host, *three) for host, three in zip(self._hosts, figures, strict=True)]
            for notice in self._guard.look(paces):
                self._notice(notice, step)


def probe(device: torch.device) -> float:
    """Return the seconds for a few matrix multiplications: the minimum of several runs, to ignore transient load."""
    side, products = ON_GPU if device.type == "cuda" else ON_CPU
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with torch.no_grad():
        matrix = torch.full((side, side), 1 / side, device=device, dtype=dtype)
        return min(_measure(matrix, products) for _ in range(MEASUREMENTS))


def _measure(matrix: torch.Tensor, products: int) -> float:
    if matrix.device.type != "cuda":
        start = time.perf_counter()
        _multiply(matrix, products)
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    _multiply(matrix, products)
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def _multiply(matrix: torch.Tensor, products: int) -> None:
    result = matrix
    for _ in range(products):
        result = result @ matrix
