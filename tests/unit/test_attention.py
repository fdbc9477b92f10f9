"""Attention kernels: what they support, environment variables that select them, and the memory of scores."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from check_jobs import codes, facts, findings, job, resolved

from nemolaunch import catalogue
from nemolaunch.estimate import estimate
from nemolaunch.estimate.memory import MemoryEstimate
from nemolaunch.facts import Host
from nemolaunch.resolve import attention

HOPPER, AMPERE, BLACKWELL = (9, 0), (8, 0), (10, 0)


@pytest.mark.parametrize(
    ("backend", "model", "values", "capability", "can"),
    [
        ("auto", "llama3_8b", {}, None, True),
        ("auto", "llama3_8b", {"precision": "fp32"}, HOPPER, True),  # what is left keeps scores
        ("auto", "llama3_8b", {"precision": "fp32", "context_parallel_size": 2}, HOPPER, False),
        ("flash", "llama3_8b", {"context_parallel_size": 2}, HOPPER, True),
        ("flash", "llama3_8b", {"precision": "fp32"}, HOPPER, False),
        ("fused", "llama3_8b", {"precision": "fp32"}, HOPPER, False),
        ("unfused", "llama3_8b", {"precision": "fp32"}, HOPPER, True),
        ("unfused", "llama3_8b", {"context_parallel_size": 2}, HOPPER, False),
        ("local", "llama3_8b", {}, AMPERE, True),
        ("local", "llama3_8b", {"context_parallel_size": 2}, HOPPER, False),
        ("local", "mixtral_8x7b", {}, HOPPER, True),
        ("local", "deepseek_v3", {}, HOPPER, False),
        ("local", "gemma2_9b", {}, HOPPER, False),
        ("local", "gemma3_1b", {}, HOPPER, False),
        ("local", "bert_110m", {}, HOPPER, False),
        # documents that do not attend to each other, as packed sequences
        ("auto", "llama3_8b", {"reset_attention_mask": True}, AMPERE, True),
        ("auto", "llama3_8b", {"reset_attention_mask": True, "precision": "fp32"}, HOPPER, False),
        ("flash", "llama3_8b", {"reset_attention_mask": True}, AMPERE, True),
        ("fused", "llama3_8b", {"reset_attention_mask": True}, AMPERE, False),
        ("fused", "llama3_8b", {"reset_attention_mask": True}, HOPPER, True),
        ("unfused", "llama3_8b", {"reset_attention_mask": True}, HOPPER, False),
        ("local", "llama3_8b", {"reset_attention_mask": True}, HOPPER, False),
        # heads of 256 channels
        ("flash", "gemma_7b", {}, AMPERE, True),
        ("fused", "gemma_7b", {}, HOPPER, True),
        ("fused", "gemma_7b", {}, AMPERE, False),
        ("fused", "gemma_7b", {}, BLACKWELL, False),
        ("fused", "gemma_7b", {}, None, True),
        # latent attention: 192 for queries and keys, 128 for values
        ("flash", "deepseek_v3", {}, HOPPER, True),
        ("flash", "deepseek_v3", {}, BLACKWELL, False),
        ("fused", "deepseek_v3", {}, BLACKWELL, True),
        ("fused", "deepseek_v3", {}, AMPERE, False),
    ],
)
def test_what_kernels_support(
    backend: str, model: str, values: dict[str, Any], capability: tuple[int, int] | None, can: bool
) -> None:
    reason = attention.refusal(backend, job(model, **values), catalogue.model(model), capability)
    assert (reason is None) == can, reason


def test_flash_attention_has_to_be_installed_where_the_job_runs() -> None:
    host = Host(gpus=("NVIDIA H100 80GB HBM3",) * 8, flash_attention=False)
    here = {"executor": "local", "num_gpus": 8}
    asked = {**here, "attention_backend": "flash"}
    assert "attention-backend" in codes(changed={"host": host}, **asked)
    assert "attention-backend" not in codes(changed={"host": host}, **here)
    assert "attention-backend" in codes("gemma_2b", changed={"host": host}, **here)  # the recipe asks for it
    assert "attention-backend" not in codes(attention_backend="flash")  # a container has it


@pytest.mark.parametrize(
    ("values", "exported", "fixes"),
    [
        ({}, {"NVTE_FUSED_ATTN": "1"}, None),
        ({}, {"NVTE_FLASH_ATTN": "0"}, ["use --attention-backend fused"]),
        ({"env": ("NVTE_FLASH_ATTN=1",)}, {"NVTE_FLASH_ATTN": "0"}, None),  # what is given wins
        ({"env": ("NVTE_FLASH_ATTN=0", "A=1")}, {}, ["use --attention-backend fused", "use --env A=1"]),
        ({"model_name": "gemma_2b", "env_preset": ("fused-attention",)}, {}, ["drop --env-preset"]),
        ({"attention_backend": "flash", "env_preset": ("debug", "fused-attention")}, {}, ["use --env-preset debug"]),
    ],
)  # fmt: skip
def test_variables_of_the_shell_and_of_flags_must_match_the_backend(
    values: dict[str, Any], exported: dict[str, str], fixes: list[str] | None
) -> None:
    found = findings(changed={"exported": exported}, **{"model_name": "llama3_8b", **values})
    told = [f for f in found if f.code == "attention-variables"]
    assert bool(told) == (fixes is not None)
    for fix in fixes or []:
        assert fix in [str(f) for f in told[0].fixes]


def test_what_the_recipe_turns_on_is_turned_off_by_name() -> None:
    (finding,) = [f for f in findings(overlap_grad_reduce=False) if f.code == "param-gather-in-one"]
    assert [str(fix) for fix in finding.fixes] == [
        "use --overlap-grad-reduce", "use --no-overlap-param-gather"
    ]  # fmt: skip


def memory(**values: Any) -> MemoryEstimate:
    estimated = estimate(resolved(job(gpu="h200", **values)))
    assert estimated is not None
    return estimated.memory


def test_memory_of_scores_is_what_softmax_keeps() -> None:
    def kept(**values: Any) -> int:
        return memory(**values).activations

    heads, length, layers = 32, 8192, 32
    added = kept(attention_backend="unfused") - kept()
    expanded = length * 2 * (32 - 8) * 128 * 2  # keys and values copied for every head of the queries
    statistics = length * heads * 4
    assert added == pytest.approx(layers * (heads * length**2 * 2 + expanded - statistics), rel=1e-6)
    assert kept(attention_backend="fused") == kept(attention_backend="flash") == kept()
    # neither FlashAttention nor cuDNN takes fp32
    assert kept(precision="fp32") == kept(precision="fp32", attention_backend="unfused")
    # one layer's at a time where they are recomputed
    recomputed = {"attention_backend": "unfused", "recompute_granularity": "selective"}
    assert kept(**recomputed) < kept() * 1.5
    workspace = memory(**recomputed).workspace
    assert workspace > heads * length**2 * 2 * 2


def test_graphs_keep_memory_that_the_loss_could_use() -> None:
    plain = memory()
    graphs = memory(cuda_graphs=True)
    assert graphs.workspace > plain.workspace
    assert dataclasses.replace(graphs, workspace=0) == dataclasses.replace(plain, workspace=0)


def test_a_rehearsal_lists_what_it_omits() -> None:
    asked = job(
        executor="local", attention_backend="fused", cuda_graphs=True, tp_comm_overlap=True,
        overlap_grad_reduce=False,
    )  # fmt: skip
    found = resolved(asked, host=facts(asked).host)
    assert found.device == "cpu"
    assert (found.job.speed.cuda_graphs, found.job.speed.tp_comm_overlap) == (False, False)
    assert found.job.speed.overlap_grad_reduce is False
    assert found.job.speed.attention_backend == "fused"
    told = " ".join(found.left_out)
    assert "CUDA graphs" in told
    assert "tensor parallel communication" in told
    assert "attention backend fused" in told
