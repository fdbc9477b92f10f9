"""Replace the scheduler's state in a checkpoint by what NeMo's own scheduler saves."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def as_nemo_saves(checkpoint: str) -> dict[str, Any]:
    """Write the state of a `CosineAnnealing` that has done the checkpoint's steps. Return it."""
    import torch
    from nemo.core.optim.lr_scheduler import CosineAnnealing

    file = Path(checkpoint) / "weights" / "common.pt"
    common = torch.load(file, weights_only=False)
    (ours,) = common["lr_schedulers"]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=ours["base_lrs"][0])
    nemo = CosineAnnealing(
        optimizer, max_steps=ours["max_steps"], warmup_steps=ours["warmup_steps"], min_lr=ours["min_lr"]
    )
    for _ in range(ours["last_epoch"]):
        optimizer.step()
        nemo.step()
    common["lr_schedulers"] = [nemo.state_dict()]
    torch.save(common, file)
    return dict(nemo.state_dict())
