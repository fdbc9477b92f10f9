"""This training process among all."""

from __future__ import annotations

import torch

from nemolaunch.planning import Plan


def is_first() -> bool:
    """Return whether this is the first rank."""
    return torch.distributed.get_rank() == 0


def device_of(plan: Plan) -> torch.device:
    """Return the device that this rank computes on."""
    return torch.device("cpu") if plan.device == "cpu" else torch.device("cuda", torch.cuda.current_device())
