"""What the fork server's ranks run to see the guards at work: a saved plan, with something going wrong in it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any


def train(plan_file: str, fault: str, rank: int, steps: list[int]) -> dict[str, Any]:
    """Train the plan with a fault of one rank in these steps. Returns the losses and the weights' norm.

    Faults: `nan` and `spike` change what the model computes; `late data` lets the rank wait for its data,
    `slow` is a rank that computes slowly, `pause` one that stands still for a while.
    """
    import torch
    from lightning.pytorch import Callback

    from nemolaunch.nemo2.entry import run_plan
    from nemolaunch.planning import Plan
    from nemolaunch.ranks import comparison, guards, progress

    comparison.EVERY_STEPS = 2
    guards.ENOUGH = guards.ENOUGH_LOSSES = 6
    if fault == "pause":
        progress.QUIET_MIN_S, progress.QUIET_FACTOR, progress.POLL_S = 1.0, 1.5, 0.1
    losses: list[float] = []
    norms: list[float] = []

    class Fault(Callback):
        wrong = False

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self.mine = trainer.global_rank == rank
            for name, module in trainer.strategy.megatron_parallel.named_modules():
                if name.endswith("output_layer"):
                    module.register_forward_hook(self.disturb)
            if self.mine and fault == "slow":
                measure = comparison._measure
                comparison._measure = lambda *a: 10 * measure(*a)

        def disturb(self, module: Any, given: Any, made: Any) -> Any:
            factor = {"nan": float("nan"), "spike": 40.0}.get(fault)
            if not (self.wrong and factor):
                return made
            return (made[0] * factor, *made[1:])

        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            self.wrong = self.mine and trainer.global_step + 1 in steps
            if self.wrong and fault == "pause":
                time.sleep(4.0)

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            losses.append(float(trainer.callback_metrics["reduced_train_loss"]))
            weights = trainer.strategy.megatron_parallel.parameters()
            norms.append(float(torch.sqrt(sum((p.detach().float() ** 2).sum() for p in weights))))

    if fault == "late data":
        _delay_data(rank, steps)
    run_plan(Plan.load(Path(plan_file)), callbacks=(Fault(),))
    return {"losses": losses, "norms": norms}


def _delay_data(rank: int, steps: list[int]) -> None:
    import os

    from megatron.core.datasets.gpt_dataset import GPTDataset

    fetch = GPTDataset.__getitem__

    def late(self: Any, index: int) -> Any:
        if int(os.environ["RANK"]) == rank:
            time.sleep(0.1)
        return fetch(self, index)

    GPTDataset.__getitem__ = late
