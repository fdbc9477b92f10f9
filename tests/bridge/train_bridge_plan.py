"""What the ranks of the Bridge server run: a saved plan, with what came out of each step recorded."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any


def train(
    plan_file: str,
    kill_after: int | None = None,
    ask_after: int | None = None,
    spoil: tuple[int, int, float] | None = None,
    hide: str | None = None,
    same_start: bool = False,
    more: tuple[Any, ...] = (),
) -> dict[str, Any]:
    """Train the plan in this rank. Returns what the steps had: loss, gradient norm, rate, samples consumed and the
    norm of the weights.

    `kill_after`: end this process with SIGKILL once that many steps are done. `ask_after`: send it SIGTERM. `spoil`: on
    this rank, in this step, multiply the model's output with a number. `hide`: rename this folder after the first step.
    `same_start`: begin with weights that only depend on their names. `more`: further callbacks.
    """
    import torch
    from megatron.bridge.training.callbacks import Callback
    from redraw import redraw

    from nemolaunch.bridge.entry import run_plan
    from nemolaunch.planning import Plan
    from nemolaunch.ranks.slurm_rank import signals

    steps: dict[str, list[Any]] = {
        name: [] for name in ("step", "loss", "grad_norm", "lr", "samples", "weights")
    }
    rank, spoiled, factor = spoil or (-1, 0, 1.0)

    class Record(Callback):
        wrong = False

        def on_train_start(self, context: Any) -> None:
            for chunk in context.model:
                if same_start:
                    redraw(chunk.named_parameters())
                for name, module in chunk.named_modules():
                    if name.endswith("output_layer"):
                        module.register_forward_hook(self.disturb)

        def disturb(self, module: Any, given: Any, made: Any) -> Any:
            return (made[0] * factor, *made[1:]) if self.wrong else made

        def on_train_step_start(self, context: Any) -> None:
            steps["lr"].append(context.optimizer.param_groups[0]["lr"])
            mine = torch.distributed.get_rank() == rank
            self.wrong = mine and context.state.train_state.step + 1 == spoiled

        def on_train_step_end(self, context: Any) -> None:
            loss = context.loss_dict.get("lm loss")  # on the last pipeline stage
            steps["step"].append(context.state.train_state.step + 1)
            steps["loss"].append(None if loss is None else float(loss))
            steps["grad_norm"].append(float(context.grad_norm))
            steps["samples"].append(context.state.train_state.consumed_train_samples)
            weights = (p for chunk in context.model for p in chunk.parameters())
            steps["weights"].append(float(torch.sqrt(sum((p.detach().float() ** 2).sum() for p in weights))))
            if hide and context.state.train_state.step == 0:
                os.rename(hide, hide + "-hidden")
            if context.state.train_state.step == kill_after:
                os.kill(os.getpid(), signal.SIGKILL)
            if context.state.train_state.step + 1 == ask_after:
                os.kill(os.getpid(), signal.SIGTERM)

    plan = Plan.load(Path(plan_file))
    os.environ.update(plan.variables)  # as the launcher does
    if plan.outlives_its_command:
        signals.catch()  # as the entry point does
    run_plan(plan, callbacks=(Record(), *more))
    return steps
