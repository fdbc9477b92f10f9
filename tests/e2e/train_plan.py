"""What the fork server's ranks run in the end-to-end tests: a saved plan, with what went in and out recorded."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any


def train(
    plan_file: str, kill_after: int | None = None, hide: str | None = None, same_start: bool = False
) -> dict[str, Any]:
    """Train the plan in this rank. Returns per-step losses, gradient norms, rates and the optimizer's settings, and the
    ids and prefixes of the samples fed.

    `kill_after`: end this process with SIGKILL once that many steps are done. `hide`: rename this folder after the
    first step. `same_start`: begin with weights that only depend on their names.
    """
    from lightning.pytorch import Callback
    from megatron.core.datasets.gpt_dataset import GPTDataset
    from redraw import redraw

    from nemolaunch.nemo2.entry import run_plan
    from nemolaunch.planning import Plan

    samples: list[int] = []
    prefixes: list[str] = []
    fetch = GPTDataset.__getitem__

    def recording(self: Any, index: int) -> Any:
        if self.index_split.name == "train":
            samples.append(int(index))
            prefixes.append(str(self.dataset_path))
        return fetch(self, index)

    GPTDataset.__getitem__ = recording
    steps: dict[str, list[Any]] = {"step": [], "loss": [], "grad_norm": [], "lr": [], "optimizer": []}

    class Record(Callback):
        def on_train_start(self, trainer: Any, *_: Any) -> None:
            if same_start:
                redraw(trainer.lightning_module.named_parameters())

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            steps["step"].append(trainer.global_step)
            steps["loss"].append(float(trainer.callback_metrics["reduced_train_loss"]))
            steps["grad_norm"].append(float(trainer.callback_metrics["grad_norm"]))
            steps["lr"].append(float(trainer.callback_metrics["lr"]))
            steps["optimizer"].append(_settings(trainer.optimizers[0].param_groups))
            if hide and trainer.global_step == 1:
                os.rename(hide, hide + "-hidden")
            if trainer.global_step == kill_after:
                os.kill(os.getpid(), signal.SIGKILL)

    plan = Plan.load(Path(plan_file))
    os.environ.update(plan.variables)  # as the launcher does
    run_plan(plan, callbacks=(Record(),))
    return {**steps, "samples": samples, "prefixes": prefixes}


def _settings(groups: Any) -> dict[str, Any]:
    """Weight decay of decayed and other parameters, betas and epsilon, as the optimizer's groups have them."""
    (betas,) = {tuple(group.get("betas", ())) for group in groups}
    (eps,) = {group.get("eps") for group in groups}
    return {"weight_decay": sorted({group["weight_decay"] for group in groups}), "betas": betas, "eps": eps}
