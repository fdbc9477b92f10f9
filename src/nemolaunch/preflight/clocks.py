"""How far the clocks of nodes are apart, from messages that carry the time (as NTP does, RFC 5905)."""

from __future__ import annotations

import time
from collections.abc import Iterable

import torch
import torch.distributed as dist

EXCHANGES = 8


def ahead_s(exchanges: Iterable[tuple[float, float, float]]) -> float:
    """Return how far another clock is ahead: by the exchange with the shortest round trip.

    Args:
        exchanges: when a message was sent and its answer received by this clock, and between them the other's time,
            as (sent, other, received).
    """
    sent, other, received = min(exchanges, key=lambda each: each[2] - each[0])
    return other - (sent + received) / 2


def compare(with_rank: int) -> float:
    """Return how far the clock of that rank, which calls `answer`, is ahead of this one."""
    return ahead_s([_ask(with_rank) for _ in range(EXCHANGES)])


def _ask(rank: int) -> tuple[float, float, float]:
    message = torch.zeros(1, dtype=torch.float64)
    sent = time.time()
    dist.send(message, rank)
    dist.recv(message, rank)
    return sent, float(message.item()), time.time()


def answer(rank: int) -> None:
    """Answer another rank's `compare`."""
    message = torch.zeros(1, dtype=torch.float64)
    for _ in range(EXCHANGES):
        dist.recv(message, rank)
        message.fill_(time.time())
        dist.send(message, rank)
