"""Bridge accepts every configuration that the checks accept, and the tables of its fields are Bridge's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import check_jobs
from forkserver import ForkServer
from truth.bridge_verdict import BRIDGE, FACTS

from nemolaunch import catalogue
from nemolaunch.catalogue import bridge_only, bridge_settings
from nemolaunch.check.bridge_setting_owners import FREE, fixed, owner
from nemolaunch.findings import errors
from nemolaunch.planning import Plan, make_plan

EVERYTHING: dict[str, Any] = {
    "num_gpus": 64,
    "tensor_model_parallel_size": 2,
    "pipeline_model_parallel_size": 2,
    "virtual_pipeline_model_parallel_size": 2,
    "context_parallel_size": 2,
    "sequence_parallel": True,
    "recompute_granularity": "full",
    "recompute_method": "block",
    "recompute_num_layers": 2,
    "on_not_finite": "skip",
    "overlap_grad_reduce": False,
    "overlap_param_gather": False,
    "log_every": 3,
    "checkpoint_every": 5,
    "num_workers": 3,
    "trust_remote_code": True,
}
# Jobs that together take every way through the compilation
JOBS: list[tuple[str, dict[str, Any]]] = [
    ("llama3_70b", EVERYTHING),
    ("llama3_8b", {"precision": "fp32", "attention_backend": "local", "seed": 5}),
    ("llama3_8b", {"optim_cpu_offloading": True, "cpu_offloading": True, "cpu_offloading_layers": 2}),
    (
        "llama3_8b",
        {"cuda_graphs": True, "tp_comm_overlap": False, "disable_dist_optim": True, "optimizer": "sgd"},
    ),
    ("mixtral_8x7b", {"num_gpus": 8, "expert_model_parallel_size": 8, "moe_z_loss_coeff": 1e-3}),
    ("gemma3_1b", {}),
    ("deepseek_v3", {"num_gpus": 64, "expert_model_parallel_size": 4}),
]
# Bridge derives them from `fp8_param_gather` and `fp4_param_gather`
DERIVED = {"mixed_precision.fp8_param", "mixed_precision.fp4_param"}


def saved(folder: Path, name: str, model: str, **values: Any) -> Plan:
    job = check_jobs.job(model, **{"max_steps": 10, "output_dir": str(folder / "run"), **BRIDGE, **values})
    plan = make_plan(job, facts=check_jobs.facts(job, **FACTS))
    plan.save(folder / f"{name}.json")
    return plan


def test_bridge_accepts_what_the_checks_accept(bridge_server: ForkServer) -> None:
    """Its validation of the whole configuration, `runtime_config_update`, on jobs over all models and flags."""
    (result,) = bridge_server.run("truth.bridge_verdict:compare", {"seed": 0, "count": 60}, timeout=300)
    assert result["disagreements"] == []
    assert len(result["accepted"]) > 30


def test_bridge_accepts_the_models_that_only_it_has(bridge_server: ForkServer) -> None:
    (refused,) = bridge_server.run("truth.bridge_verdict:own_layouts")
    assert refused == dict.fromkeys(catalogue.only_in_bridge())


def test_the_table_is_what_bridge_says(bridge_server: ForkServer) -> None:
    (text,) = bridge_server.run("bridge.config_job:rendered_fields")
    assert bridge_settings.TABLE.read_text(encoding="utf-8") == text, (
        "run `.venv-bridge/bin/python -m nemolaunch.bridge.fields_dump`"
    )


def test_the_models_of_bridge_are_what_it_says(bridge_server: ForkServer) -> None:
    (text,) = bridge_server.run("bridge.config_job:rendered_models")
    assert bridge_only.TABLE.read_text(encoding="utf-8") == text, (
        "run `.venv-bridge/bin/python -m nemolaunch.bridge.models_dump`"
    )


def test_megatron_core_has_no_layers_of_deepseek_v4(bridge_server: ForkServer) -> None:
    """If it gets them, the model belongs in the catalogue, and docs/backends.md must not say otherwise."""
    (answer,) = bridge_server.run("bridge.config_job:layers_of_deepseek_v4", {})
    assert answer == "Invalid experimental attention variant: dsv4_hybrid"


def test_every_field_that_is_written_belongs_to_a_flag(bridge_server: ForkServer, tmp_path: Path) -> None:
    plans = {
        str(tmp_path / f"{number}.json"): saved(tmp_path, str(number), model, **values)
        for number, (model, values) in enumerate(JOBS)
    }
    (found,) = bridge_server.run("bridge.config_job:written", {"plan_files": list(plans)})
    assert sum(map(len, found.values())) > 200
    left = {
        path
        for file, plan in plans.items()
        for path in found[file]
        if path not in FREE | DERIVED
        and not (owner(path, plan.job) or fixed(path) or bridge_settings.replaced_by(path))
    }
    assert left == set(), "add these to check/bridge_setting_owners.py"


def test_settings_are_in_the_configuration(bridge_server: ForkServer, tmp_path: Path) -> None:
    words = {
        "model.hidden_dropout=0.1": "0.1",
        "model.moe_router_load_balancing_type=sinkhorn": "'sinkhorn'",
        "optimizer.sgd_momentum=0.8": "0.8",
        "ddp.bucket_size=4e7": "40000000",
        "mixed_precision.grad_reduce_in_fp32=false": "False",
        "train.manual_gc=true": "True",
        "logger.log_params_norm=true": "True",
        "dist.distributed_timeout_minutes=30": "30",
        "optimizer.exp_avg_dtype=bf16": "torch.bfloat16",
    }
    plan = saved(tmp_path, "plan", "mixtral_8x7b", num_gpus=8, set=tuple(words))
    assert [f for f in errors(plan.findings) if f.code.startswith("set-")] == []
    paths = [word.partition("=")[0] for word in words]
    (found,) = bridge_server.run(
        "bridge.config_job:values", {"plan_file": str(tmp_path / "plan.json"), "paths": paths}
    )
    assert list(found.values()) == list(words.values())
