"""Estimated bytes compared with a rehearsal's tensors: exact for weights, gradients and optimizer state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cases import cases
from e2e.jobs import planned
from forkserver import ForkServer

from nemolaunch.estimate import activations as act
from nemolaunch.estimate import layout_of_job
from nemolaunch.estimate.memory import stage_memory
from nemolaunch.planning import Plan

# Not counted: masks, indices and positions, which are negligible for layers of a usual width.
TOLERANCE = 0.01
ROUTING_TOLERANCE = (
    0.05  # the estimate assumes equally many tokens per expert; a router does not achieve that
)
SCAN_TOLERANCE = 0.05  # of its many tensors, the small ones are not counted
UNCOUNTED_BYTES_A_TOKEN = 64

SHAPE = """\
num_layers: 4
hidden_size: 64
num_attention_heads: 4
num_query_groups: 2
ffn_hidden_size: 128
seq_length: 64
"""
STATES = "hybrid_override_pattern: M-M*\nmamba_num_groups: 2\nmamba_state_dim: 16\nmamba_head_dim: 16\n"
EXPERTS = "num_moe_experts: 4\nmoe_ffn_hidden_size: 96\n"
FURTHER = {"mixtral": EXPERTS, "nemotronh_8b": STATES}
TENSOR = {"tensor_model_parallel_size": 2, "sequence_parallel": True}
PIPELINE = {"pipeline_model_parallel_size": 2}
FULL = {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 2}
MODULES = {"recompute_granularity": "selective"}
BLOCK = {"recompute_granularity": "full", "recompute_method": "block", "recompute_num_layers": 1}

JOBS: dict[str, tuple[str, dict[str, Any]]] = {
    "one rank": ("llama3", {}),
    "data": ("llama3", {"precision": "bf16", "num_gpus": 2}),
    "without distributed optimizer": (
        "llama3",
        {"precision": "bf16", "num_gpus": 2, "disable_dist_optim": True},
    ),
    "tensor": ("llama3", {"tensor_model_parallel_size": 2}),
    "tensor and sequence": ("llama3", {**TENSOR, "precision": "bf16"}),
    "pipeline": ("llama3", {**PIPELINE, "precision": "bf16"}),
    "virtual pipeline": ("llama3", {**PIPELINE, "virtual_pipeline_model_parallel_size": 2}),
    "context": ("llama3", {"context_parallel_size": 2}),
    "recomputed": ("llama3", FULL),
    "partly recomputed": ("llama3", {**BLOCK, **PIPELINE}),
    "MLPs recomputed": ("llama3", {**MODULES, "recompute_modules": ("mlp",)}),
    "experts recomputed": ("mixtral", {**MODULES, "recompute_modules": ("moe",), "precision": "bf16"}),
    "tied embeddings": ("llama32", {**PIPELINE, "precision": "bf16"}),
    "biases": ("qwen2", {**TENSOR, "precision": "bf16"}),
    "LayerNorm, squared ReLU": ("nemotron", {"precision": "bf16"}),
    "scores kept": ("llama3", {"attention_backend": "local"}),
    "scores kept in bf16": ("llama3", {"attention_backend": "local", "precision": "bf16", **TENSOR}),
    "state spaces": ("nemotronh_8b", {}),
    "experts": ("mixtral", {"expert_model_parallel_size": 2, "num_gpus": 2, "precision": "bf16"}),
}
LONG = (
    "data",
    "without distributed optimizer",
    "tensor",
    "pipeline",
    "partly recomputed",
    "MLPs recomputed",
    "experts recomputed",
    "biases",
    "LayerNorm, squared ReLU",
    "scores kept",
)


@pytest.mark.parametrize("name", cases(JOBS, LONG))
def test_bytes_of_a_rehearsal(fork_server: ForkServer, tmp_path: Path, data: str, name: str) -> None:
    base, values = JOBS[name]
    model = tmp_path / "model.yaml"
    model.write_text(f"base: {base}\n{SHAPE}{FURTHER.get(base, '')}")
    plan = planned(tmp_path, data, model_name=str(model), max_steps=1, micro_batch_size=2, **values)
    job = {"plan_file": str(plan.run.plan)}
    ranks = fork_server.run("e2e.measure_plan:weigh", job, nproc=plan.world_size)
    for stage in range(plan.job.parallelism.pipeline_model_parallel_size):
        _compare(plan, stage, [rank for rank in ranks if rank["stage"] == stage])


def _compare(plan: Plan, stage: int, ranks: list[dict[str, int]]) -> None:
    assert plan.estimate is not None
    architecture, rows = plan.model_row.architecture, plan.estimate.vocab_rows
    layout = layout_of_job(plan.job, plan.model_row, plan.world_size)
    expected = stage_memory(architecture, layout, stage, rows, gpu=False)
    for rank in ranks:
        assert rank["elements"] == expected.parameter_elements
        assert rank["parameters"] == expected.parameters
        assert rank["gradients"] == expected.gradients
    assert max(rank["optimizer"] for rank in ranks) == expected.optimizer
    loss = 0.0
    if stage == layout.pipeline - 1:
        loss = act.output_bytes(architecture, act.tokens_of(layout, torch=True), rows)
    layers = max(rank["activations"] for rank in ranks) - loss
    tolerance = ROUTING_TOLERANCE if architecture.num_moe_experts else TOLERANCE
    tolerance = SCAN_TOLERANCE if architecture.kind == "mamba" else tolerance
    slack = tolerance * expected.activations + UNCOUNTED_BYTES_A_TOKEN * layout.tokens
    print(f"{layers:,.0f} bytes kept by the layers, {expected.activations:,} estimated")
    assert layers == pytest.approx(expected.activations, abs=slack)
