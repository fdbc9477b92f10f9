"""A training of each family that both frameworks have continues in the other one, and then in the first again.

The right values are those of the framework that trained on, and the checkpoint that it saved itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bridge.test_families import FAMILIES, GROUPED, ROUNDS_OTHERWISE, small
from bridge.test_same_training import BRIDGE
from forkserver import ForkServer

from nemolaunch.checkpoint.convert.convert import convert
from nemolaunch.checkpoint.migrate.names import is_left_out
from nemolaunch.checkpoint.storage.dcp import DcpSource
from nemolaunch.planning import Plan
from nemolaunch.run.folder import step_of

# Those of which the losses are compared elsewhere in other ways
MORE: dict[str, dict[str, Any]] = {
    "llama31_8b": GROUPED,
    "mistral_7b": GROUPED,
    "mixtral_8x7b": {**GROUPED, "num_moe_experts": 4},
    "qwen25_500m": GROUPED,
    "qwen3_600m": {**GROUPED, "kv_channels": 32},
    "qwen3_30b_a3b": {**GROUPED, "num_moe_experts": 16, "moe_ffn_hidden_size": 32},
}
ALL = {**FAMILIES, **MORE}
SAVES: dict[str, Any] = {"max_steps": 5, "checkpoint_every": 2, "keep_latest": 3, "global_batch_size": 4}
TIMEOUT_S = 1000  # layers that differ are saved as many small tensors


def trained(server: ForkServer, plan: Plan) -> dict[str, Any]:
    """What each step of the plan had, on one rank."""
    module = "bridge.train_bridge_plan" if plan.with_bridge else "e2e.train_plan"
    (steps,) = server.run(f"{module}:train", {"plan_file": str(plan.run.plan)}, timeout=TIMEOUT_S)
    return dict(steps)


def saved(plan: Plan, step: int) -> Path:
    """The plan's checkpoint after some steps: the folder with the tensors."""
    path = next(path for path in plan.run.complete_checkpoints() if step_of(path) == step - 1)
    return path if plan.with_bridge else path / "weights"


def content(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Type and shape of every tensor, and the names of the objects that a model has."""
    stored = DcpSource(folder)
    return stored.tensors, sorted(name for name in stored.objects if not is_left_out(name))


@pytest.mark.long
@pytest.mark.parametrize("base", ALL)
def test_a_family_goes_on_there_and_back(
    base: str, bridge_server: ForkServer, fork_server: ForkServer, data: str, tmp_path: Path
) -> None:
    """Two steps of NeMo 2, two of Bridge and one of NeMo 2 have the losses of five of NeMo 2."""
    plan = small(tmp_path / "nemo2", data, base, ALL[base], **SAVES)
    whole = trained(fork_server, plan)
    convert(saved(plan, 2).parent, tmp_path / "to-bridge", "bridge")
    resume = {"resume": str(tmp_path / "to-bridge")}
    there = small(tmp_path / "bridge", data, base, ALL[base], **BRIDGE, **SAVES, **resume)
    bridge = trained(bridge_server, there)
    assert content(tmp_path / "to-bridge" / "iter_0000002") == content(saved(there, 4))
    convert(saved(there, 4), tmp_path / "to-nemo2", "nemo2")
    assert content(tmp_path / "to-nemo2" / "weights") == content(saved(plan, 4))
    back = small(tmp_path / "back", data, base, ALL[base], **SAVES, resume=str(tmp_path / "to-nemo2"))
    again = trained(fork_server, back)
    assert (bridge["step"], again["step"]) == ([3, 4, 5], [5])
    for name in ("loss", "grad_norm"):
        right = whole[name]
        if base in ROUNDS_OTHERWISE:
            right = pytest.approx(right, rel=1e-5)
        assert [*whole[name][:2], *bridge[name]] == right, name
        assert [*whole[name][:4], *again[name]] == right, name
