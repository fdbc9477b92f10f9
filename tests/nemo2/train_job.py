"""A small NeMo pretraining for the fork server's ranks, built from NeMo's own classes."""

from __future__ import annotations

import contextlib
import os
from typing import Any

MODEL = {
    "num_layers": 4,
    "hidden_size": 64,
    "ffn_hidden_size": 128,
    "num_attention_heads": 4,
    "num_query_groups": 2,
    "seq_length": 64,
    "init_method_std": 0.05,
    "vocab_size": 512,  # else padded to a multiple of 128 x TP, and layouts would differ in their logits
}


def write_corpus(prefix: str, num_tokens: int = 20_000, vocab_size: int = 384) -> None:
    """Random tokens as Megatron's `<prefix>.bin` and `<prefix>.idx`, in documents of 100."""
    import numpy as np
    import torch
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    builder = IndexedDatasetBuilder(prefix + ".bin", dtype=np.uint16)
    tokens = np.random.default_rng(0).integers(vocab_size, size=(num_tokens // 100, 100))
    for document in tokens:
        builder.add_document(torch.from_numpy(document), [len(document)])
    builder.finalize(prefix + ".idx")


def train(
    folder: str,
    tokenizer: str,
    corpus: str,
    *,
    steps: int = 4,
    stop_after: int | None = None,
    save_at: int | None = None,
    start: str | None = None,
    family: str = "llama3_8b",
    model: dict[str, Any] | None = None,
    strategy: dict[str, Any] | None = None,
    precision: str = "bf16-mixed",
    distributed_optimizer: bool = True,
) -> dict[str, list[float]]:
    """Train `steps` steps of the recipe `family`, shrunk; returns the loss, gradient norm and learning
    rate of each step.

    Continues from a checkpoint in `folder` when there is one; `start` gives initial weights; `save_at` is the
    step interval of checkpoints; `stop_after` ends the run early.
    """
    import nemo_run as run
    from nemo import lightning as nl
    from nemo.collections import llm
    from nemo.collections.common.tokenizers.huggingface.auto_tokenizer import AutoTokenizer

    from nemolaunch import cpu

    recipe = getattr(llm, family).pretrain_recipe(dir=folder, name="run", num_nodes=1, num_gpus_per_node=1)
    for name, value in {**MODEL, **(model or {})}.items():
        setattr(recipe.model.config, name, value)
    recipe.data = run.Config(
        llm.PreTrainingDataModule,
        paths=[corpus],
        split="100,0,0",
        seq_length=recipe.model.config.seq_length,
        micro_batch_size=1,
        global_batch_size=8,
        num_workers=0,
        tokenizer=run.Config(AutoTokenizer, pretrained_model_name=tokenizer),
    )
    recipe.trainer.devices = int(os.environ["WORLD_SIZE"])
    recipe.trainer.max_steps = steps
    recipe.trainer.limit_val_batches = 0
    recipe.trainer.val_check_interval = None
    recipe.trainer.log_every_n_steps = 1
    recipe.trainer.strategy.context_parallel_size = 1
    for name, value in (strategy or {}).items():
        setattr(recipe.trainer.strategy, name, value)
    recipe.trainer.strategy.ddp.use_distributed_optimizer = distributed_optimizer
    recipe.optim.config.use_distributed_optimizer = distributed_optimizer
    if precision == "32":
        recipe.trainer.plugins = run.Config(
            nl.MegatronMixedPrecision, precision="32", grad_reduce_in_fp32=True
        )
    recipe.optim.lr_scheduler.warmup_steps = 1
    recipe.log.ckpt = run.Config(
        nl.ModelCheckpoint,
        every_n_train_steps=save_at,
        save_last=save_at is not None,
        save_top_k=0 if save_at is None else -1,
        monitor="reduced_train_loss",
        save_optim_on_train_end=True,
    )
    if start:
        recipe.resume.restore_config = run.Config(nl.RestoreConfig, path=start)
    cpu.adapt(recipe)
    return _fit(recipe, stop_after)


def _fit(recipe: Any, stop_after: int | None) -> dict[str, list[float]]:
    import fiddle
    from lightning.pytorch import Callback

    history: dict[str, list[float]] = {"reduced_train_loss": [], "grad_norm": [], "lr": []}

    class Record(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            for name, values in history.items():
                values.append(float(trainer.logged_metrics[name]))

        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == stop_after:
                trainer.strategy.checkpoint_io.maybe_finalize_save_checkpoint(blocking=True)
                raise StopEarlyError

    task = fiddle.build(recipe)
    task.keywords["trainer"].callbacks.append(Record())  # not in the recipe: it would be in the context
    with contextlib.suppress(StopEarlyError):
        task()
    return history


class StopEarlyError(Exception):
    """The run ends as if it had been interrupted, but for a checkpoint on its way, which is waited for."""
