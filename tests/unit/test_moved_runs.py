"""Runs that are moved to the other framework: what is refused before anything is written, and what the plan says.

`tests/bridge/test_migrate.py` trains them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import check_jobs
import pytest
import training_checkpoint as checkpoints
from e2e.jobs import planned

import nemolaunch as nl
from nemolaunch.errors import NemolaunchError
from nemolaunch.planning import Plan, PlanError

TOKENIZER = Path(__file__).parents[2] / "examples" / "tokenizer"
NGC = "nvcr.io/nvidia/nemo"


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A run of NeMo 2 with one checkpoint, of which the last was not complete; not to be changed."""
    folder = tmp_path_factory.mktemp("run")
    model = checkpoints.hf_model(folder / "hf", TOKENIZER)
    data = check_jobs.write_data(folder)
    about: dict[str, Any] = {"model_name": "hf", "hf_model_id": str(model), "seq_length": 64}
    plan = planned(folder, str(data), **about, max_steps=8, decay_steps=8)
    name = f"{plan.checkpoint_prefix}--step={checkpoints.STEP - 1}-consumed_samples={checkpoints.SAMPLES}.0"
    checkpoints.write(plan.run.checkpoints / name, model)
    return plan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"container_image": f"{NGC}:26.06"}, "unknown version: megatron-bridge 0.5.0; known is 0.6"),
        ({"container_image": f"{NGC}:26.08", "disable_dist_optim": True}, "--disable-dist-optim"),
        ({"container_image": f"{NGC}:26.08", "optimizer": "sgd"}, "--optimizer"),
        ({"container_image": f"{NGC}:26.08", "fp8": "hybrid"}, "fp8"),
    ],
)
def test_refused_by_name(changes: dict[str, Any], message: str, plan: Plan, tmp_path: Path) -> None:
    """Other releases, and state that the optimizer of the new plan cannot load."""
    with pytest.raises((NemolaunchError, PlanError), match=message):
        nl.migrate(plan.run.root, to="bridge", output=tmp_path / "new", executor="docker", **changes)
    assert not list(tmp_path.iterdir())
