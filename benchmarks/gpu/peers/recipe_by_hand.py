"""Train a NeMo recipe as in NeMo's documentation, with nothing of ours: `recipe_by_hand.py '{…}'`.

NeMo's recipes need Transformer Engine; without it, both contenders use our stand-in layers.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

WARM_UP = 5


def recipe_of(request: dict[str, Any]) -> Any:
    """Return the recipe with the job's sizes, data and optimizer."""
    import nemo_run as run
    from nemo import lightning as nl
    from nemo.collections import llm
    from nemo.collections.common.tokenizers.huggingface.auto_tokenizer import AutoTokenizer

    recipe = getattr(llm, request["recipe"]).pretrain_recipe(
        dir=request["work"], name="by-hand", num_nodes=1, num_gpus_per_node=1
    )
    for name, value in request["overrides"].items():
        setattr(recipe.model.config, name, value)
    recipe.model.config.seq_length = request["seq_length"]
    strategy = recipe.trainer.strategy
    strategy.tensor_model_parallel_size = strategy.pipeline_model_parallel_size = 1
    strategy.context_parallel_size, strategy.virtual_pipeline_model_parallel_size = 1, None
    strategy.sequence_parallel, strategy.pipeline_dtype = False, None
    recipe.data = run.Config(
        llm.PreTrainingDataModule,
        paths=request["paths"],
        seq_length=request["seq_length"],
        global_batch_size=request["global_batch_size"],
        micro_batch_size=1,
        tokenizer=run.Config(AutoTokenizer, pretrained_model_name=request["tokenizer"], use_fast=True),
        split="100,0,0",
        num_workers=0,
    )
    config = recipe.optim.config
    config.lr, config.min_lr, config.adam_beta1, config.adam_beta2 = 1e-4, 1e-6, 0.9, 0.999
    config.weight_decay, config.clip_grad = 0.0, 1.0
    recipe.optim.lr_scheduler = run.Config(
        nl.lr_scheduler.CosineAnnealingScheduler, max_steps=100_000, warmup_steps=2, min_lr=1e-6
    )
    trainer = recipe.trainer
    trainer.max_steps, trainer.limit_val_batches, trainer.val_check_interval = request["steps"], 0, None
    trainer.log_every_n_steps, trainer.num_sanity_val_steps = 1, 0
    recipe.log.ckpt = run.Config(
        nl.ModelCheckpoint, save_top_k=0, save_last=False, every_n_train_steps=100_000
    )
    recipe.resume = None
    return recipe


def train(request: dict[str, Any]) -> dict[str, Any]:
    """Train. Return the median time between the ends of steps, after warm-up, and peak memory."""
    on_cpu = request["device"] == "cpu"
    if on_cpu or not request["transformer_engine"]:
        from nemolaunch import cpu

        (cpu.install if on_cpu else cpu.install_layers)()
    import fiddle as fdl
    import torch
    from lightning.pytorch import Callback

    ends: list[float] = []

    class Clock(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            ends.append(time.perf_counter())

    recipe = recipe_of(request)
    if on_cpu:
        cpu.adapt(recipe)
    elif not request["transformer_engine"]:
        cpu.adapt_for_plain_layers(recipe)
    if on_cpu:
        recipe.model.config.gradient_accumulation_fusion = False
    task: Any = fdl.build(recipe)
    task.keywords["trainer"].callbacks.append(Clock())
    task()
    seconds = [b - a for a, b in itertools.pairwise(ends)][WARM_UP:]
    peak = 0 if on_cpu else torch.cuda.max_memory_allocated()
    return {"step_time_s": statistics.median(seconds), "steps": len(seconds), "memory_peak_bytes": peak}


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    Path(asked["out"]).write_text(json.dumps(train(asked)))
