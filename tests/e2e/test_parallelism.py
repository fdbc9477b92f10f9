"""Every way to split a job gives the losses of one process, all started from the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cases import cases
from e2e.jobs import planned, train
from forkserver import ForkServer

# fp32; sums are taken in another order: the largest relative difference seen is 3e-6
TOLERANCE = 2e-5

LAYOUTS: dict[str, dict[str, Any]] = {
    "TP2": {"tensor_model_parallel_size": 2},
    "TP2+SP": {"tensor_model_parallel_size": 2, "sequence_parallel": True},
    "PP2": {"pipeline_model_parallel_size": 2},
    "PP2+VPP2": {"pipeline_model_parallel_size": 2, "virtual_pipeline_model_parallel_size": 2},
    "CP2": {"context_parallel_size": 2},
    "DP2": {"num_gpus": 2},
    "DP2 without distributed optimizer": {"num_gpus": 2, "disable_dist_optim": True},
    "DP4, optimizer in two copies": {"num_gpus": 4, "num_distributed_optimizer_instances": 2},
    "DP2 without overlap": {"num_gpus": 2, "overlap_grad_reduce": False, "overlap_param_gather": False},
    "attention of Megatron's own": {"attention_backend": "local"},
    "what a GPU has": {"attention_backend": "flash", "cuda_graphs": True, "tp_comm_overlap": True},
    "micro batch 2": {"micro_batch_size": 2},
    "CP2, micro batch 2": {"context_parallel_size": 2, "micro_batch_size": 2},
    "full recompute": {
        "recompute_granularity": "full",
        "recompute_method": "uniform",
        "recompute_num_layers": 1,
    },
    "selective recompute, TP2+SP": {
        "recompute_granularity": "selective",
        "tensor_model_parallel_size": 2,
        "sequence_parallel": True,
    },
    "asynchronous save": {"no_async_save": False},
}


LONG = (
    "TP2",
    "PP2",
    "DP2 without distributed optimizer",
    "DP2 without overlap",
    "attention of Megatron's own",
    "what a GPU has",
    "micro batch 2",
    "CP2, micro batch 2",
    "full recompute",
)


@pytest.fixture(scope="module")
def reference(
    fork_server: ForkServer, data: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, list[float]]:
    """Weights to start from, and the losses of a single process that starts from them."""
    folder = tmp_path_factory.mktemp("weights")
    start = planned(folder, data, max_steps=1)
    train(fork_server, start)
    weights = str(start.run.last_checkpoint())
    folder = tmp_path_factory.mktemp("reference")
    (result,) = train(fork_server, planned(folder, data, nemo_model=weights))
    return weights, result["loss"]


@pytest.mark.parametrize("name", cases(LAYOUTS, LONG))
def test_the_loss_is_that_of_one_process(
    name: str, reference: tuple[str, list[float]], fork_server: ForkServer, data: str, tmp_path: Path
) -> None:
    weights, expected = reference
    ranks = train(fork_server, planned(tmp_path, data, nemo_model=weights, **LAYOUTS[name]))
    assert ranks[0]["loss"] == pytest.approx(expected, rel=TOLERANCE)
    assert len(set(expected)) == len(expected) == 5


def test_bf16_trains_like_fp32(
    reference: tuple[str, list[float]], fork_server: ForkServer, data: str, tmp_path: Path
) -> None:
    weights, expected = reference
    ranks = train(fork_server, planned(tmp_path, data, nemo_model=weights, precision="bf16", num_gpus=2))
    assert ranks[0]["loss"] == pytest.approx(expected, rel=0.01)


def test_experts_are_split_over_two_processes(fork_server: ForkServer, data: str, tmp_path: Path) -> None:
    model = tmp_path / "moe.yaml"
    model.write_text(
        "base: mixtral_8x7b\nnum_layers: 2\nhidden_size: 64\nnum_attention_heads: 4\nnum_query_groups: 2\n"
        "ffn_hidden_size: 128\nnum_moe_experts: 4\nmoe_ffn_hidden_size: 128\nseq_length: 64\n"
    )
    start = planned(tmp_path, data, model_name=str(model), output_dir=str(tmp_path / "start"), max_steps=1)
    train(fork_server, start)
    common = {"model_name": str(model), "nemo_model": str(start.run.last_checkpoint()), "max_steps": 3}
    one = train(fork_server, planned(tmp_path, data, output_dir=str(tmp_path / "one"), **common))
    two = train(
        fork_server,
        planned(tmp_path, data, output_dir=str(tmp_path / "two"), expert_model_parallel_size=2, **common),
    )
    assert len(two) == 2
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=TOLERANCE)
