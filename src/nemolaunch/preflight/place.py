"""Which rank a process is, and on which node."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Which rank this process is, and where."""

    rank: int
    local_rank: int
    world_size: int
    node: str

    @classmethod
    def here(cls) -> Place:
        """Return the place that torchrun's or Slurm's variables describe."""
        return cls(
            rank=_number("RANK", "SLURM_PROCID", 0),
            local_rank=_number("LOCAL_RANK", "SLURM_LOCALID", 0),
            world_size=_number("WORLD_SIZE", "SLURM_NTASKS", 1),
            node=os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        )


def _number(name: str, slurm: str, default: int) -> int:
    return int(os.environ.get(name) or os.environ.get(slurm) or default)
