"""Megatron's fields for the layout of a plan, the same in both frameworks."""

from __future__ import annotations

from typing import Any

import torch

from nemolaunch.arithmetic.pipeline import pipeline_split
from nemolaunch.job import Job
from nemolaunch.planning import Plan


def parallel_fields(plan: Plan) -> dict[str, Any]:
    """Return the parallel sizes, and the type that pipeline stages exchange."""
    p = plan.job.parallelism
    return {
        "tensor_model_parallel_size": p.tensor_model_parallel_size,
        "pipeline_model_parallel_size": p.pipeline_model_parallel_size,
        "virtual_pipeline_model_parallel_size": _virtual_size(plan),
        "context_parallel_size": p.context_parallel_size,
        "sequence_parallel": p.sequence_parallel and p.tensor_model_parallel_size > 1,
        "expert_model_parallel_size": p.expert_model_parallel_size,
        "expert_tensor_parallel_size": p.expert_tensor_parallel_size,
        "pipeline_dtype": parameter_type(plan.job) if p.pipeline_model_parallel_size > 1 else None,
    }


def exchange_fields(plan: Plan) -> dict[str, Any]:
    """Return how interleaved stages exchange activations.

    Megatron's batched exchange pairs sends with the wrong receives if both neighbours of a stage are the same rank
    (PP=2): it silently trains on garbage. Megatron-LM rejects this combination, NeMo and Bridge do not.
    """
    return {"overlap_p2p_comm": True, "batch_p2p_comm": False} if _virtual_size(plan) else {}


def split_fields(plan: Plan) -> dict[str, Any]:
    """Return the planned split of layers. The recipe's own split only suits the recipe's own pipeline size."""
    model, stages = plan.model_row, plan.job.parallelism.pipeline_model_parallel_size
    split = pipeline_split(
        model.architecture, stages, _virtual_size(plan), model.recipe.pipeline_model_parallel_size
    )
    return {
        "num_layers_in_first_pipeline_stage": split.first if split else None,
        "num_layers_in_last_pipeline_stage": split.last if split else None,
        "account_for_embedding_in_pipeline_split": bool(split and split.embedding),
        "account_for_loss_in_pipeline_split": bool(split and split.loss),
    }


def _virtual_size(plan: Plan) -> int | None:
    """Return the stages of a rank; None if they are not interleaved."""
    p = plan.job.parallelism
    virtual = p.virtual_pipeline_model_parallel_size or 1
    return virtual if p.pipeline_model_parallel_size > 1 and virtual > 1 else None


def parameter_type(job: Job) -> torch.dtype:
    """Return the type of parameters, and of what pipeline stages exchange."""
    return torch.float32 if job.batch.precision == "fp32" else torch.bfloat16


def as_config_wants(name: str, value: Any) -> Any:
    """Return sequences as tuples, except the pattern of expert layers, which Megatron only accepts as a list."""
    if not isinstance(value, (list, tuple)):
        return value
    return list(value) if name == "moe_layer_freq" else tuple(value)
