"""What the fork server's ranks run in the test of the router's loss and of recomputed modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def train(plan_file: str, record: str) -> dict[str, Any]:
    """Train the plan, one step. Return its loss, and how often layers with experts and attention kernels ran.

    The weight of the last layer's router before and after the step, and its inputs of each micro batch, are saved to
    the file `record`.
    """
    import torch
    from lightning.pytorch import Callback
    from megatron.core.transformer.moe.moe_layer import MoELayer
    from megatron.core.transformer.moe.router import TopKRouter

    from nemolaunch.cpu.attention import CoreAttention
    from nemolaunch.nemo2.entry import run_plan
    from nemolaunch.planning import Plan

    ran = {"moe": 0, "core_attn": 0}
    inputs: list[Any] = []
    found: dict[str, Any] = {"inputs": inputs}

    class Record(Callback):
        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            modules = list(trainer.strategy.megatron_parallel.modules())
            (*_, self.router) = (module for module in modules if isinstance(module, TopKRouter))
            found["before"] = self.router.weight.detach().clone()
            gate = self.router.gating

            def gating(x: Any) -> Any:
                inputs.append(x.detach().clone())
                return gate(x)

            self.router.gating = gating
            for name, kind in (("moe", MoELayer), ("core_attn", CoreAttention)):
                for module in modules:
                    if isinstance(module, kind):
                        module.register_forward_pre_hook(lambda *_, name=name: self.count(name))

        def count(self, name: str) -> None:
            ran[name] += 1

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            found["after"] = self.router.weight.detach().clone()
            found["loss"] = float(trainer.callback_metrics["reduced_train_loss"])

    run_plan(Plan.load(Path(plan_file)), callbacks=(Record(),))
    torch.save(found, record)
    return {"loss": found["loss"], "ran": ran}
