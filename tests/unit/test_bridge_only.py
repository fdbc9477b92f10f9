"""Models that only Megatron-Bridge has: found, counted, planned with it, and refused with NeMo 2."""

from __future__ import annotations

from pathlib import Path

import pytest
from check_jobs import codes, job, resolved

from nemolaunch import arithmetic, catalogue
from nemolaunch.catalogue import bridge_models
from nemolaunch.check import check
from nemolaunch.facts.interpreter import Interpreter
from nemolaunch.findings import errors

FACTS = {"interpreter": Interpreter(path="/env/bin/python", bridge="0.6.2", megatron="0.19.2")}


# The numbers of the models' cards: 20.9B and 116.8B (openai/gpt-oss, arXiv 2508.10925, table 1, which counts the
# embedding once), 6.9B of which 1.3B are active (OLMoE, arXiv 2409.02060)
@pytest.mark.parametrize(
    ("name", "total", "active"),
    [("gpt_oss_20b", 20.9, 3.6), ("gpt_oss_120b", 116.8, 5.1), ("olmoe_7b", 6.9, 1.3)],
)
def test_parameters_are_those_published(name: str, total: float, active: float) -> None:
    model = catalogue.model(name)
    counts = arithmetic.parameters(model.architecture, model.architecture.known("vocab_size"))
    assert counts.total / 1e9 == pytest.approx(total, rel=0.01)
    embedding = counts.embedding if name.startswith("gpt_oss") else 0
    assert (counts.active - embedding) / 1e9 == pytest.approx(active, rel=0.02)


@pytest.mark.parametrize("name", catalogue.only_in_bridge())
def test_only_bridge_trains_them(name: str) -> None:
    assert bridge_models.refusal(catalogue.model(name)) is None
    assert "bridge-only" in codes(name)
    model = catalogue.model(name).recipe
    asked = job(
        name,
        backend="bridge",
        num_nodes=model.num_nodes,
        num_gpus=8,
        tensor_model_parallel_size=model.tensor_model_parallel_size,
        pipeline_model_parallel_size=model.pipeline_model_parallel_size,
        expert_model_parallel_size=model.expert_model_parallel_size,
        expert_tensor_parallel_size=model.expert_tensor_parallel_size,
        sequence_parallel=model.sequence_parallel,
        global_batch_size=512,
        max_steps=10,
    )
    assert errors(check(resolved(asked, **FACTS))) == ()


def test_a_file_can_start_from_one(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text("base: olmoe_7b\nnum_layers: 2\n")
    assert bridge_models.model_fields(catalogue.model(str(path)))["num_layers"] == 2
