"""Runs in a fork server's rank: the configuration that a plan is compiled to, and the one that a conversion wrote."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

# Decided by the job: its lengths, layout and precision; and how the layers are built from the same parameters
THE_JOBS = {
    "generation_config",
    "seq_length", "params_dtype", "bf16", "fp16", "fp8", "autocast_dtype", "pipeline_dtype",
    "gradient_accumulation_fusion",
    "tensor_model_parallel_size", "pipeline_model_parallel_size", "sequence_parallel", "expert_model_parallel_size",
    "context_parallel_size", "virtual_pipeline_model_parallel_size", "expert_tensor_parallel_size",
    "num_layers_in_first_pipeline_stage", "num_layers_in_last_pipeline_stage", "deallocate_pipeline_outputs",
    "overlap_p2p_comm", "batch_p2p_comm", "cross_entropy_fusion_impl", "cross_entropy_loss_fusion", "enable_cuda_graph",
    "recompute_granularity", "recompute_method", "recompute_num_layers", "recompute_modules",
}  # fmt: skip


def different(pairs: list[tuple[str, str]]) -> dict[str, list[str]]:
    """By plan: the fields in which the compiled model differs from the checkpoint's that goes with it."""
    from fiddle import build
    from nemo.lightning.io import load_context

    from nemolaunch.nemo2.recipe import compile_recipe
    from nemolaunch.planning import Plan

    found = {}
    for plan, checkpoint in pairs:
        ours = build(compile_recipe(Plan.load(Path(plan))).model.config)
        theirs = load_context(Path(checkpoint) / "context", subpath="model.config")
        found[plan] = [
            f"{field.name}: {_plain(getattr(ours, field.name))} is {_plain(getattr(theirs, field.name))}"
            for field in dataclasses.fields(theirs)
            if field.name not in THE_JOBS
            and _plain(getattr(ours, field.name, "missing")) != _plain(getattr(theirs, field.name))
        ]
    return found


def _plain(value: Any) -> str:
    """A value as text, without the addresses of functions, and with tuples as lists."""
    if callable(value):
        return str(getattr(value, "__qualname__", type(value).__name__))
    return repr(list(value) if isinstance(value, tuple) else value)
