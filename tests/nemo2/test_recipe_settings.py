"""The table of settings is NeMo's, the fields that flags decide are all listed, and settings reach the recipe."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import check_jobs
import pytest
from forkserver import ForkServer

from nemolaunch import catalogue
from nemolaunch.catalogue import recipe_fields
from nemolaunch.check.setting_owners import FIXED, FREE, owner
from nemolaunch.facts import Host
from nemolaunch.findings import errors
from nemolaunch.job import Job
from nemolaunch.planning import Plan, make_plan

GPUS = Host(gpus=("NVIDIA H100 80GB HBM3",) * 8, num_cpus=64, memory_bytes=2**40)
EVERYTHING: dict[str, Any] = {
    "tensor_model_parallel_size": 2,
    "pipeline_model_parallel_size": 2,
    "virtual_pipeline_model_parallel_size": 2,
    "context_parallel_size": 2,
    "sequence_parallel": True,
    "num_distributed_optimizer_instances": 2,
    "recompute_granularity": "full",
    "recompute_method": "block",
    "recompute_num_layers": 2,
    "fp8": True,
    "fp8_recipe": "mxfp8",
    "wandb": True,
    "on_not_finite": "skip",
    "attention_backend": "local",
    "cuda_graphs": True,
    "tp_comm_overlap": True,
    "overlap_grad_reduce": True,
    "overlap_param_gather": True,
    "checkpoint_every": 5,
}
# Jobs that together take every way through the compilation
JOBS: list[tuple[str, dict[str, Any]]] = [
    ("llama3_70b", EVERYTHING),
    ("llama3_8b", {"precision": "fp32", "cpu_offloading": True, "cpu_offloading_layers": 2}),
    ("llama3_8b", {"optim_cpu_offloading": True, "objective": "mlm", "mask_token": "<|reserved_0|>"}),
    ("deepseek_v3", {"optimizer": "sgd", "disable_dist_optim": True}),
    ("t5_220m", {"pipeline_model_parallel_size": 2}),
    ("bert_110m", {"mask_token": "<|reserved_0|>"}),
    ("aixsim-60m", {"nemo_model": "/weights", "device": "cpu", "executor": "local"}),
    ("llama3_8b", {"data_mode": "stream", "dataset_dir": ("/data/texts",), "resume": "/checkpoint"}),
]


def saved(folder: Path, name: str, model: str = "llama3_8b", **values: Any) -> Plan:
    job = check_jobs.job(
        model, **{"max_steps": 10, "num_gpus": 8, "output_dir": str(folder / "run"), **values}
    )
    host = Host(num_cpus=8) if job.launch.device == "cpu" else GPUS
    plan = make_plan(job, facts=check_jobs.facts(job, host=host))
    plan.save(folder / f"{name}.json")
    return plan


def test_the_table_is_what_nemo_says(fork_server: ForkServer) -> None:
    (text,) = fork_server.run("nemo2.settings_job:rendered_fields")
    assert recipe_fields.TABLE.read_text(encoding="utf-8") == text, (
        "run `python -m nemolaunch.nemo2.fields_dump`"
    )


def undecided(paths: list[str], job: Job) -> list[str]:
    """Those paths that neither a flag decides nor nemolaunch always sets; parts of a recipe are no fields."""
    parts = {
        "model.config",
        "trainer.strategy",
        "trainer.strategy.ddp",
        "trainer.plugins",
        "optim.config",
        "data",
    }
    parts |= {"log.ckpt", "optim.lr_scheduler"}
    return [
        path
        for path in paths
        if path not in parts | FREE
        and not any(owner(above, job) or above in FIXED for above in ancestors(path))
    ]


def ancestors(path: str) -> list[str]:
    names = path.split(".")
    return [".".join(names[: end + 1]) for end in range(1, len(names))]


def test_every_field_that_is_written_belongs_to_a_flag(fork_server: ForkServer, tmp_path: Path) -> None:
    plans = {
        str(tmp_path / f"{number}.json"): saved(tmp_path, str(number), model, **values)
        for number, (model, values) in enumerate(JOBS)
    }
    (found,) = fork_server.run("nemo2.settings_job:written", {"plan_files": list(plans)})
    assert sum(map(len, found.values())) > 300
    left = {path for file, plan in plans.items() for path in undecided(found[file], plan.job)}
    assert left == set(), "add these to check/setting_owners.py"


def test_settings_are_in_the_recipe_and_shown(fork_server: ForkServer, tmp_path: Path) -> None:
    words = (
        "model.config.hidden_dropout=0.1",
        "model.config.moe_router_load_balancing_type=sinkhorn",
        "optim.config.exp_avg_dtype=bf16",
        "trainer.strategy.ddp.bucket_size=4e7",
        "trainer.strategy.ckpt_parallel_save=false",
        "trainer.plugins.grad_reduce_in_fp32=false",
        "trainer.detect_anomaly=true",
        "data.dataloader_type=cyclic",
        "log.files_to_copy=[a, b c]",
        "log.ckpt.verbose=false",
    )
    (model,) = [r.name for r in catalogue.recipes() if "MegatronCommOverlapCallback" in r.callbacks][:1]
    plan = saved(tmp_path, "plan", model, set=words)
    assert [f for f in errors(plan.findings) if f.code.startswith("set-")] == []
    (lines,) = fork_server.run("nemo2.settings_job:lines", {"plan_file": str(tmp_path / "plan.json")})
    for word in words:
        path, _, text = word.partition("=")
        text = {"4e7": "40000000", "bf16": "bfloat16"}.get(text, text)
        assert f"{path} = {text}" in lines
    # the callback would set buckets of 128 MiB when training starts
    (callback,) = (line for line in lines if line.startswith("trainer.callbacks") and ".bucket_size" in line)
    assert callback.endswith("= 40000000")
    assert "model.config.bf16: replaced by trainer.plugins when training starts" in lines
    assert "optim.config.adam_beta1 = 0.9" in lines


def test_gradient_buffers_are_made_where_the_recipe_only_names_them(
    fork_server: ForkServer, tmp_path: Path
) -> None:
    saved(tmp_path, "plan", "t5_220m", set=("trainer.strategy.ddp.bucket_size=3",))
    (lines,) = fork_server.run("nemo2.settings_job:lines", {"plan_file": str(tmp_path / "plan.json")})
    assert "trainer.strategy.ddp.bucket_size = 3" in lines


def test_a_field_that_this_nemo_lacks_is_a_plain_error(fork_server: ForkServer, tmp_path: Path) -> None:
    plan = saved(tmp_path, "plan", set=("optim.config.adam_epsilon=1e-3",))
    changed = dataclasses.replace(plan, findings=())  # as with --force set-unknown
    changed.save(tmp_path / "plan.json")
    (message,) = fork_server.run("nemo2.settings_job:refused", {"plan_file": str(tmp_path / "plan.json")})
    assert message.startswith(
        "--set optim.config.adam_epsilon=1e-3: the installed NeMo 2.7.3 does not accept"
    )
    assert "\n" not in message


@pytest.mark.parametrize("path", ["optim.config.lr", "resume.x", "optim.lr_scheduler.interval"])
def test_parts_that_flags_decide_as_a_whole(path: str) -> None:
    assert owner(path, Job()) is not None
