"""What the ranks of the Bridge server run: a saved plan, with what came out of each step recorded."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any


def train(plan_file: str, kill_after: int | None = None) -> dict[str, Any]:
    """Train the plan in this rank. Returns what the steps had: loss, gradient norm, rate and samples consumed.

    `kill_after`: end this process with SIGKILL once that many steps are done.
    """
    from megatron.bridge.training.callbacks import Callback

    from nemolaunch.bridge.entry import run_plan
    from nemolaunch.planning import Plan

    steps: dict[str, list[Any]] = {"step": [], "loss": [], "grad_norm": [], "lr": [], "samples": []}

    class Record(Callback):
        def on_train_step_start(self, context: Any) -> None:
            steps["lr"].append(context.optimizer.param_groups[0]["lr"])

        def on_train_step_end(self, context: Any) -> None:
            loss = context.loss_dict.get("lm loss")  # on the last pipeline stage
            steps["step"].append(context.state.train_state.step + 1)
            steps["loss"].append(None if loss is None else float(loss))
            steps["grad_norm"].append(float(context.grad_norm))
            steps["samples"].append(context.state.train_state.consumed_train_samples)
            if context.state.train_state.step == kill_after:
                os.kill(os.getpid(), signal.SIGKILL)

    plan = Plan.load(Path(plan_file))
    os.environ.update(plan.variables)  # as the launcher does
    run_plan(plan, callbacks=(Record(),))
    return steps
