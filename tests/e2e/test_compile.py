"""Every model of the catalogue becomes a NeMo recipe in which the flags are found again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from e2e.jobs import TOKENIZER
from forkserver import ForkServer

from nemolaunch import catalogue
from nemolaunch.facts import Host, look
from nemolaunch.findings import errors
from nemolaunch.job import Job
from nemolaunch.planning import Plan, make_plan

ASKED: dict[str, Any] = {
    "hf_model_id": TOKENIZER,
    "num_nodes": 4,
    "num_gpus": 8,
    "tensor_model_parallel_size": 2,
    "pipeline_model_parallel_size": 2,
    "context_parallel_size": 2,
    "sequence_parallel": True,
    "seq_length": 4096,
    "max_steps": 77,
    "global_batch_size": 64,
    "micro_batch_size": 2,
    "warmup_steps": 5,
    "val_check_interval": 500,
    "lr": 1e-3,
    "adam_eps": 1e-7,
    "recompute_granularity": "full",
    "recompute_method": "block",
    "recompute_num_layers": 3,
    "fp8": True,
    "checkpoint_every": 11,
}


def gpu_plan(folder: Path, data: str, model: str, **values: Any) -> Plan:
    """A plan as a machine with eight H100 would make it."""
    job = Job().with_values(model_name=model, dataset_dir=[data], output_dir=str(folder / model), **values)
    facts = look(job)
    host = Host(name="gpu", gpus=("NVIDIA H100 80GB HBM3",) * 8, gpu_memory_bytes=80 * 2**30, num_cpus=64)
    return make_plan(job, facts=dataclasses.replace(facts, host=host))


@pytest.fixture(scope="module")
def compiled(fork_server: ForkServer, data: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("plans")
    files = []
    for recipe in catalogue.recipes():
        plan = gpu_plan(folder, data, recipe.name, **ASKED)
        files.append(str(plan.save(folder / f"{recipe.name}.json")))
    (result,) = fork_server.run("e2e.compile_plans:compile_all", {"plan_files": files}, timeout=300)
    return dict(result)


def test_all_91_recipes_compile(compiled: dict[str, Any]) -> None:
    assert len(compiled) == 91
    assert {name: fields["error"] for name, fields in compiled.items() if "error" in fields} == {}


@pytest.mark.parametrize("flag", [f for f in ASKED if f not in ("hf_model_id", "val_check_interval", "fp8")])
def test_the_flag_is_found_in_every_compiled_recipe(flag: str, compiled: dict[str, Any]) -> None:
    assert {name: fields[flag] for name, fields in compiled.items() if fields[flag] != ASKED[flag]} == {}


def test_traps_of_the_recipes_are_dealt_with(compiled: dict[str, Any], data: str) -> None:
    for name, fields in compiled.items():
        assert fields["data module"].endswith("PreTrainingDataModule"), name
        assert all(path.startswith(data) for path in fields["paths"]), name
        assert fields["model seq_length"] == fields["seq_length"] == 4096, name
        assert fields["tokenizer"] == TOKENIZER, name
        assert fields["scheduler steps"] == 77, name
        assert fields["val_check_interval"] == 77, "clamped to the run"
        assert fields["fp8"] == "hybrid", name
        assert fields["optimizer in last checkpoint"] is True, name
        assert fields["reshardable"] is True, name
        assert fields["resume"] is True, name
        assert fields["virtual_pipeline_model_parallel_size"] is None, name


def test_recipes_that_can_attend_to_both_sides_do_when_asked(
    fork_server: ForkServer, data: str, tmp_path: Path
) -> None:
    plans = [
        gpu_plan(
            tmp_path, data, recipe.name, hf_model_id=TOKENIZER, max_steps=5, objective="mlm",
            mask_token="<|reserved_special_token_0|>",
        )
        for recipe in catalogue.recipes()
    ]  # fmt: skip
    able = [p for p in plans if "objective-unsupported" not in [finding.code for finding in p.findings]]
    files = [str(plan.save(tmp_path / f"{plan.recipe}.json")) for plan in able]
    (compiled,) = fork_server.run("e2e.compile_plans:compile_all", {"plan_files": files}, timeout=300)
    assert len(compiled) == 61
    for name, fields in compiled.items():
        assert "error" not in fields, (name, fields)
        assert fields["layers"] == (None if name.startswith("bert") else "get_nv_embedding_layer_spec"), name
        assert fields["mean over tokens"] is True, name
        assert not fields["average in collective"], name
        assert fields["data module"] == "PreTrainingDataModule", name


def test_fp8_recipes_are_nemos_own(fork_server: ForkServer, data: str, tmp_path: Path) -> None:
    files = []
    for recipe in ("delayed", "tensorwise", "blockwise", "mxfp8"):
        values = {"hf_model_id": TOKENIZER, "fp8": True, "fp8_recipe": recipe, "max_steps": 5}
        files.append(str(gpu_plan(tmp_path, data, "llama3_8b", **values).save(tmp_path / f"{recipe}.json")))
    found = []
    for file in files:  # one at a time: results are by model
        (result,) = fork_server.run("e2e.compile_plans:compile_all", {"plan_files": [file]}, timeout=100)
        found.append(result["llama3_8b"])
    assert [f["fp8_recipe"] for f in found] == ["delayed", "tensorwise", "blockwise", "mxfp8"]
    assert False not in found[0]["gathers ahead"]
    # MXFP8 gathers weights into the gradient buffer, which must not be in use
    assert set(found[3]["gathers ahead"]) == {False}


def test_kernels_graphs_and_overlap_are_as_asked(fork_server: ForkServer, data: str, tmp_path: Path) -> None:
    asked = {
        "attention_backend": "fused",
        "cuda_graphs": True,
        "tp_comm_overlap": True,
        "overlap_grad_reduce": False,
        "overlap_param_gather": False,
    }
    files = []
    for recipe in catalogue.recipes():
        plan = gpu_plan(tmp_path, data, recipe.name, hf_model_id=TOKENIZER, max_steps=5, **asked)
        files.append(str(plan.save(tmp_path / f"{recipe.name}.json")))
    (compiled,) = fork_server.run("e2e.compile_plans:compile_all", {"plan_files": files}, timeout=300)
    assert len(compiled) == 91
    for name, fields in compiled.items():
        assert "error" not in fields, (name, fields)
        assert fields["kernels"] == {
            "attention_backend": "fused",
            "cuda_graphs": ["local", True],
            "tp_comm_overlap": [True],
            "overlap_grad_reduce": [False, False],
            "overlap_param_gather": [False, False],
        }, name


def test_what_is_not_asked_of_kernels_stays_the_recipes(compiled: dict[str, Any]) -> None:
    for recipe in catalogue.recipes():
        found = compiled[recipe.name]["kernels"]
        assert found["attention_backend"] == recipe.attention_backend, recipe.name
        assert found["cuda_graphs"] == ["none", False], recipe.name
        for name in ("overlap_grad_reduce", "overlap_param_gather"):
            assert bool(found[name][0]) == getattr(recipe, name), (recipe.name, name)
        assert (len(found[name]) == 2) == ("MegatronCommOverlapCallback" in recipe.callbacks), recipe.name


def test_overlap_in_tensor_parallel_leaves_the_rest_as_the_recipe_has_it(
    fork_server: ForkServer, data: str, tmp_path: Path
) -> None:
    plan = gpu_plan(
        tmp_path, data, "qwen2_7b", hf_model_id=TOKENIZER, max_steps=5, tp_comm_overlap=True,
        tensor_model_parallel_size=2, sequence_parallel=True,
    )  # fmt: skip
    assert not errors(plan.findings)
    file = str(plan.save(tmp_path / "plan.json"))
    (compiled,) = fork_server.run("e2e.compile_plans:compile_all", {"plan_files": [file]}, timeout=100)
    found = compiled["qwen2_7b"]["kernels"]
    assert found["tp_comm_overlap"] == [True]
    # NeMo's callback would turn both on where it is not told otherwise
    assert found["overlap_grad_reduce"] == found["overlap_param_gather"] == [False, False]


def test_a_model_of_ones_own_sets_its_fields(fork_server: ForkServer, data: str, tmp_path: Path) -> None:
    plan = gpu_plan(tmp_path, data, "aixsim-60m", hf_model_id=TOKENIZER, max_steps=5)
    assert plan.recipe.startswith("llama")
    assert {
        "num_layers": 22,
        "hidden_size": 384,
        "num_attention_heads": 6,
        "num_query_groups": 2,
    }.items() <= (plan.overrides.items())
