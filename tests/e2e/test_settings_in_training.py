"""What `--set` names is what Megatron and torch train with, from the start and after a resume with another value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.command import finished, words
from e2e.jobs import planned
from forkserver import ForkServer

SETTINGS = (
    "model.config.hidden_dropout=0.1",
    "optim.config.decoupled_weight_decay=false",
    "trainer.strategy.ddp.bucket_size=4e7",
)


@pytest.fixture(scope="module")
def trained(fork_server: ForkServer, data: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two runs of two steps, with and without settings, and the first continued to three with others."""
    found = {}
    for name, settings in (("plain", ()), ("set", SETTINGS)):
        folder = tmp_path_factory.mktemp(name)
        plan = planned(folder, data, max_steps=2, set=settings)
        (found[name],) = fork_server.run("e2e.train_with_settings:train", {"plan_file": str(plan.run.plan)})
        found[f"{name} context"] = context(plan.run.last_checkpoint())
    plan = planned(folder, data, max_steps=3, set=("model.config.hidden_dropout=0.2",))
    (found["resumed"],) = fork_server.run("e2e.train_with_settings:train", {"plan_file": str(plan.run.plan)})
    return found


def context(checkpoint: Path | None) -> dict[str, Any]:
    assert checkpoint is not None
    return dict(yaml.safe_load((checkpoint / "context" / "model.yaml").read_text()))


def test_the_framework_trains_with_the_values(trained: dict[str, Any]) -> None:
    last, plain = trained["set"]["last"], trained["plain"]["last"]
    assert (last["hidden_dropout"], last["decoupled"], last["bucket_size"]) == (0.1, False, 40_000_000)
    assert (plain["hidden_dropout"], plain["decoupled"]) == (0.0, True), "of the recipe and of Megatron"
    assert trained["set"]["first"]["loss"] != trained["plain"]["first"]["loss"], (
        "dropout acts from the first step"
    )


def test_the_checkpoint_records_the_values(trained: dict[str, Any]) -> None:
    config = trained["set context"]["config"]
    assert config["hidden_dropout"] == 0.1
    assert trained["set context"]["optim"]["config"]["decoupled_weight_decay"] is False
    assert trained["plain context"]["config"].get("hidden_dropout", 0.0) == 0.0


def test_a_resumed_run_trains_with_the_values_of_its_own_plan(trained: dict[str, Any]) -> None:
    first = trained["resumed"]["first"]
    assert first["step"] == 3
    assert (first["hidden_dropout"], first["decoupled"]) == (0.2, True)


def test_the_recipe_is_shown_below_the_plan(data: str, tmp_path: Path) -> None:
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    job = words(tmp_path, data, "--max-steps", "3", *settings, "--dry-run", "--show-recipe")
    done = finished(job, tmp_path)
    assert done.returncode == 0, done.stderr
    plan, _, recipe = done.stdout.partition("\nrecipe llama3_8b:\n\n")
    assert f"--set                 {SETTINGS[0]} " in plan
    lines = recipe.splitlines()
    assert "model.config.hidden_dropout = 0.1" in lines
    assert "trainer.strategy.ddp.bucket_size = 40000000" in lines
    assert "trainer.accelerator = cpu" in lines, "as the rehearsal trains it"
    assert "optim.config.lr = 0.001" in lines
    assert not (tmp_path / "run").exists()
