"""What the fork server's rank runs: a saved plan, with what Megatron and torch hold once it trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def train(plan_file: str) -> dict[str, Any]:
    """Train the plan. Returns what the first and last step saw of the values that `--set` changes."""
    from lightning.pytorch import Callback

    from nemolaunch.nemo2.entry import run_plan
    from nemolaunch.planning import Plan

    seen: list[dict[str, Any]] = []

    class Look(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            (optimizer,) = trainer.optimizers
            (chained,) = optimizer.mcore_optimizer.chained_optimizers
            (chunk,) = trainer.strategy.megatron_parallel
            seen.append(
                {
                    "step": trainer.global_step,
                    "hidden_dropout": chunk.module.config.hidden_dropout,
                    "decoupled": chained.optimizer.adam_w_mode,
                    "bucket_size": chunk.ddp_config.bucket_size,
                    "loss": float(trainer.callback_metrics["reduced_train_loss"]),
                }
            )

    run_plan(Plan.load(Path(plan_file)), callbacks=(Look(),))
    return {"first": seen[0], "last": seen[-1]}
