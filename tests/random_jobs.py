"""Random jobs from a seed, over all models and the flags that rules are about."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from nemolaunch.resolve.recompute import MODULES

# Of the recipe: two that every model has, one that callbacks may replace, and one that does not exist
SETTINGS = (
    "model.config.hidden_dropout=0.1",
    "optim.config.decoupled_weight_decay=false",
    "trainer.strategy.ddp.bucket_size=40000000",
    "trainer.strategy.ddp.bucket=40000000",
)
SIZES = (1, 1, 1, 2, 2, 4, 8, 3, 5, 6, 7, 12, 16)


def random_values(rng: random.Random, models: Sequence[str]) -> dict[str, Any]:
    """Return values of a job: about half of the flags are set, mostly to valid values."""
    values: dict[str, Any] = {"model_name": rng.choice(models)}
    values.update(_layout(rng))
    values.update(_batch(rng))
    if rng.random() < 0.5:
        values.update(_recompute(rng))
    if rng.random() < 0.3:
        values.update(_offload(rng))
    if rng.random() < 0.4:
        values.update(_numbers(rng))
    if rng.random() < 0.2:
        values.update(_objective(rng))
    if rng.random() < 0.3:
        values.update(_speed(rng))
    if rng.random() < 0.2:
        values["set"] = tuple(rng.sample(SETTINGS, k=rng.choice((1, 1, 2))))
    if rng.random() < 0.2:
        values.update(_documents(rng))
    if rng.random() < 0.1:
        values["moe_z_loss_coeff"] = rng.choice((1e-3, 1.0))
    return values


def _documents(rng: random.Random) -> dict[str, Any]:
    names = ("reset_attention_mask", "reset_position_ids", "eod_mask_loss")
    return {name: rng.random() < 0.5 for name in names}


def _speed(rng: random.Random) -> dict[str, Any]:
    values: dict[str, Any] = {"cuda_graphs": rng.random() < 0.4}
    if rng.random() < 0.6:
        values["attention_backend"] = rng.choice(("auto", "flash", "fused", "unfused", "local"))
    for name in ("tp_comm_overlap", "overlap_grad_reduce", "overlap_param_gather"):
        values[name] = rng.choice((None, None, True, False))
    if rng.random() < 0.3:
        values["env_preset"] = (rng.choice(("fused-attention", "save-memory", "debug")),)
    if rng.random() < 0.3:
        values["env"] = (
            rng.choice(("NVTE_FLASH_ATTN=0", "NVTE_FUSED_ATTN=0", "NVTE_UNFUSED_ATTN=1", "A=1")),
        )
    return values


def _layout(rng: random.Random) -> dict[str, Any]:
    values: dict[str, Any] = {
        "num_nodes": rng.choice((1, 1, 2, 4, 8, 3)),
        "num_gpus": rng.choice((8, 8, 4, 2, 1, 6)),
        "tensor_model_parallel_size": rng.choice(SIZES),
        "pipeline_model_parallel_size": rng.choice(SIZES),
        "context_parallel_size": rng.choice((1, 1, 1, 1, 2, 4, 3)),
        "sequence_parallel": rng.random() < 0.5,
    }
    if rng.random() < 0.3:
        values["virtual_pipeline_model_parallel_size"] = rng.choice((1, 2, 4, 5, 3, 8))
    if rng.random() < 0.3:
        values["expert_model_parallel_size"] = rng.choice(SIZES)
    if rng.random() < 0.2:
        values["expert_tensor_parallel_size"] = rng.choice((1, 2, 4, 3))
    if rng.random() < 0.6:  # as many processes as the layout needs
        replica = values["tensor_model_parallel_size"] * values["pipeline_model_parallel_size"]
        values["num_gpus"] = replica * values["context_parallel_size"] * rng.choice((1, 1, 2))
        values["num_nodes"] = 1
    return values


def _batch(rng: random.Random) -> dict[str, Any]:
    values: dict[str, Any] = {
        "global_batch_size": rng.choice((2048, 512, 256, 960, 64, 2047, 100, 7, 1)),
        "micro_batch_size": rng.choice((1, 1, 1, 2, 4, 3)),
        "max_steps": rng.choice((10, 100, 1000)),
    }
    if rng.random() < 0.15:
        start, increment = rng.choice((64, 128, 32, 7, 512)), rng.choice((64, 128, 32, 16, 100))
        values["rampup_batch_size"] = f"{start}:{increment}:{rng.choice((1, 2000, 50_000))}"
    if rng.random() < 0.6:
        values["seq_length"] = rng.choice((2048, 4096, 8192, 512, 1000, 2047, 4100, 96))
    return values


def _objective(rng: random.Random) -> dict[str, Any]:
    values: dict[str, Any] = {"objective": rng.choice(("mlm", "mlm", "mlm", "clm"))}
    if rng.random() < 0.5:
        values["mask_token"] = rng.choice(("<|reserved_0|>", "<s>", "<mask>"))
    wrong = rng.random()  # at most one of the two, as they have the same code
    if wrong < 0.3:
        values["mlm_probability"] = rng.choice((0.15, 0.0, 1.0))
    elif wrong < 0.6:
        values.update(mlm_replacement="span", mlm_span_length=rng.choice((1.0, 5.0, 0.5)))
    return values


def _recompute(rng: random.Random) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if rng.random() < 0.8:
        values["recompute_granularity"] = rng.choice(("full", "selective"))
    if rng.random() < 0.6:
        values["recompute_method"] = rng.choice(("block", "uniform"))
    if rng.random() < 0.6:
        values["recompute_num_layers"] = rng.choice((1, 2, 4, 16, 200))
    if rng.random() < 0.3:
        values["recompute_modules"] = tuple(rng.sample((*MODULES, "attention"), k=rng.choice((1, 1, 2))))
    return values


def _offload(rng: random.Random) -> dict[str, Any]:
    values: dict[str, Any] = {
        "cpu_offloading": rng.random() < 0.7,
        "cpu_offloading_activations": rng.random() < 0.7,
        "cpu_offloading_weights": rng.random() < 0.2,
        "optim_cpu_offloading": rng.random() < 0.4,
    }
    if rng.random() < 0.7:
        values["cpu_offloading_layers"] = rng.choice((0, 1, 4, 11, 23, 31, 32, 200))
    if rng.random() < 0.3:
        values["optim_cpu_offloading_frac"] = rng.choice((0.5, 0.0, 2.0, 1.0))
    return values


def _numbers(rng: random.Random) -> dict[str, Any]:
    return {
        "precision": rng.choice(("bf16", "bf16", "bf16", "fp32")),
        "fp8": rng.random() < 0.3,
        "fp8_recipe": rng.choice(("delayed", "delayed", "tensorwise", "blockwise", "mxfp8")),
        "optimizer": rng.choice(("adam", "adam", "adam", "sgd")),
        "adam_eps": rng.choice((None, None, 1e-8, 1e-5)),
        "disable_dist_optim": rng.random() < 0.3,
        "num_distributed_optimizer_instances": rng.choice((1, 1, 1, 1, 2, 4, 3)),
        "lr": rng.choice((5e-6, 1e-3, 1e-7)),
        "warmup_steps": rng.choice((0, 50, 500)),
        "constant_steps": rng.choice((0, 0, 5)),
    }
