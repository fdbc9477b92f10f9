"""`--dev-run` trains the job that was asked for, small enough for any machine."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from cases import cases
from e2e.jobs import TOKENIZER, prepared, train
from forkserver import ForkServer

from nemolaunch.findings import errors
from nemolaunch.job import Job
from nemolaunch.launching.prepare import finished_step
from nemolaunch.planning import Plan, make_plan

JOBS: dict[str, tuple[str, dict[str, Any]]] = {
    "interleaved pipeline": (
        "llama3_70b",
        {"pipeline_model_parallel_size": 2, "virtual_pipeline_model_parallel_size": 2},
    ),
    "experts over two processes": ("qwen3_30b_a3b", {"expert_model_parallel_size": 2}),
    "experts with tensor parallelism": (
        "mixtral_8x7b",
        {"tensor_model_parallel_size": 2, "sequence_parallel": True, "recompute_granularity": "selective"},
    ),
    "two kinds of attention": ("gemma2_2b", {}),
    "sliding window": ("mistral_7b", {"tensor_model_parallel_size": 2, "sequence_parallel": True}),
    "rotates half of each head": ("nemotron4_15b", {"context_parallel_size": 2}),
}
LONG = ("two kinds of attention", "sliding window", "rotates half of each head")


def dev_run(folder: Path, data: str, model: str, **values: Any) -> Plan:
    """The plan of a dev run; its run folder is `folder`/run-dev."""
    job = Job().with_values(
        model_name=model, hf_model_id=TOKENIZER, dataset_dir=[data], output_dir=str(folder / "run"), **values
    )
    return make_plan(job, dev_run=True)


@pytest.mark.parametrize("name", cases(JOBS, LONG))
def test_trains(name: str, fork_server: ForkServer, data: str, tmp_path: Path) -> None:
    model, values = JOBS[name]
    plan = dev_run(tmp_path, data, model, max_steps=2, **values)
    assert errors(plan.findings) == ()
    assert {flag: plan.job.get(flag) for flag in values} == values
    results = train(fork_server, prepared(plan))
    assert len(results) == plan.world_size == math.prod(v for f, v in values.items() if f in SHARES)
    assert results[-1]["step"] == [1, 2]
    assert all(math.isfinite(loss) for loss in results[-1]["loss"])
    assert plan.run.last_checkpoint() is not None


SHARES = (
    "tensor_model_parallel_size",
    "pipeline_model_parallel_size",
    "context_parallel_size",
    "expert_model_parallel_size",
)


def test_starts_anew_each_time(fork_server: ForkServer, data: str, tmp_path: Path) -> None:
    for steps in (2, 1):
        plan = dev_run(tmp_path, data, "llama32_1b", max_steps=steps)
        assert finished_step(plan) is None
        (result,) = train(fork_server, prepared(plan))
        assert result["step"] == [1, 2][:steps]


def test_weights_of_the_real_size_are_checked_but_not_loaded(
    fork_server: ForkServer, data: str, tmp_path: Path
) -> None:
    missing = dev_run(tmp_path, data, "llama32_1b", nemo_model=str(tmp_path / "nowhere"))
    assert [finding.code for finding in errors(missing.findings)] == ["checkpoint-unusable"]
    assert missing.job.get("nemo_model") is None
    assert any("weights" in sentence for sentence in missing.left_out)


def test_what_is_wrong_with_the_real_job_stays_wrong(data: str, tmp_path: Path) -> None:
    """Three heads divide by three in the small model, 32 in the real one do not."""
    plan = dev_run(tmp_path, data, "llama3_8b", tensor_model_parallel_size=3)
    assert "heads-by-tp" in [finding.code for finding in errors(plan.findings)]


def test_large_layouts_are_halved_until_they_fit(data: str, tmp_path: Path) -> None:
    plan = dev_run(
        tmp_path,
        data,
        "llama31_405b",
        num_nodes=72,
        executor="slurm",
        tensor_model_parallel_size=8,
        pipeline_model_parallel_size=9,
        virtual_pipeline_model_parallel_size=7,
        sequence_parallel=True,
        global_batch_size=72,
    )
    assert errors(plan.findings) == ()
    assert plan.job.launch.executor == "local"
    assert 1 < plan.world_size <= 8
    assert plan.architecture["num_layers"] % plan.job.parallelism.pipeline_model_parallel_size == 0
    assert plan.job.optimizer.lr == 3e-4  # that of the recipe, not of the small model's size
    assert plan.origins["global_batch_size"] == "the dev run"


@pytest.mark.parametrize("model", ["hyena_1b", "t5_220m"])
def test_models_that_need_a_gpu_are_refused(model: str, data: str, tmp_path: Path) -> None:
    plan = dev_run(tmp_path, data, model)
    assert "cpu-unsupported" in [finding.code for finding in errors(plan.findings)]
