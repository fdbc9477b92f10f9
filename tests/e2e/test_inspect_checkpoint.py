"""`nemolaunch inspect checkpoint` on checkpoints of a real training: summaries and comparisons."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from e2e.jobs import planned, train
from forkserver import ForkServer

from nemolaunch.cli.commands.convert import main as convert
from nemolaunch.cli.commands.inspect import main
from nemolaunch.planning import Plan


@pytest.fixture(scope="module")
def run(fork_server: ForkServer, data: str, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A finished run of four steps with two checkpoints, on two tensor-parallel ranks."""
    given = {
        "max_steps": 4,
        "checkpoint_every": 2,
        "lr": 1e-2,
        "tensor_model_parallel_size": 2,
        "num_gpus": 2,
    }
    plan = planned(tmp_path_factory.mktemp("run"), data, **given)
    train(fork_server, plan)
    return plan


def told(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict:
    capsys.readouterr()
    assert main(["checkpoint", *words, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_a_training_checkpoint_shows_step_and_layout(run: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, str(run.run.last_checkpoint()))
    assert (found["format"], found["model"], found["step"]) == ("nemo2", "LlamaModel", 4)
    assert found["samples"] == 4 * run.job.batch.global_batch_size
    assert found["tokens"] == 4 * run.tokens_per_step
    assert found["layout"]["TP"] == 2
    assert found["processes"] == 2
    assert found["optimizer"]
    assert found["resumable"]
    assert told(capsys, str(run.run.root))["step"] == 4  # a run means its newest checkpoint


def test_the_export_is_identical_and_cannot_be_resumed(
    run: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = str(run.run.last_checkpoint())
    assert convert([last, str(tmp_path / "hf"), "--verify", "none"], to="hf") == 0
    compared = told(capsys, last, str(tmp_path / "hf"))
    assert compared["equal"] > 10
    assert not any(compared[kind] for kind in ("missing", "unexpected", "other_form", "other_values"))
    assert not told(capsys, str(tmp_path / "hf"))["resumable"]


def test_two_checkpoints_of_a_run_differ(run: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    first, last = (p for p in sorted(run.run.checkpoints.iterdir()) if not p.name.endswith("-last"))
    found = told(capsys, str(first), str(last), code=1)
    assert "embedding.word_embeddings.weight" in found["other_values"]
    assert 0 < found["largest"] < 1
    assert found["missing"] == found["unexpected"] == []


def test_for_checks_a_job_without_building_the_model(
    run: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = str(run.run.last_checkpoint())
    same = told(capsys, last, "--for", str(run.run.plan))
    assert same["would_load"] == {"weights": [], "optimizer": []}
    plan = json.loads(run.run.plan.read_text())
    plan["architecture"]["num_layers"] += 2
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    other = told(capsys, last, "--for", str(tmp_path / "plan.json"), code=1)
    assert "its num_layers is" in other["would_load"]["weights"][0]
