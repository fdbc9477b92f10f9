"""A training moved between NeMo 2 and Megatron-Bridge continues as if it had not been moved.

The right values are those of the framework that trained the whole run: 8 steps are 4 of one and 4 of the other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bridge.test_same_training import BRIDGE, job, train_bridge
from e2e.jobs import train as train_nemo
from forkserver import ForkServer

from nemolaunch.checkpoint.convert.convert import convert
from nemolaunch.planning import Plan

# What both frameworks train alike from the start, by `test_same_training`
LAYOUTS: dict[str, dict[str, Any]] = {
    "tied": {"tied": True},
    "TP2 SP": {"num_gpus": 2, "tensor_model_parallel_size": 2, "sequence_parallel": True},
    "PP2, interleaved": {
        "num_gpus": 2,
        "pipeline_model_parallel_size": 2,
        "virtual_pipeline_model_parallel_size": 2,
    },
    "tied, bf16, DP2": {"precision": "bf16", "num_gpus": 2, "tied": True, "global_batch_size": 4},
    "Mixtral, EP2": {"base": "mixtral_8x7b", "num_gpus": 2, "expert_model_parallel_size": 2},
    "optimizer in one piece, DP2": {"num_gpus": 2, "disable_dist_optim": True},
}
SHORT = {"tied"}
HALF = 4
by_layout = pytest.mark.parametrize(
    "layout", [pytest.param(name, marks=() if name in SHORT else pytest.mark.long) for name in LAYOUTS]
)


def half_way(plan: Plan) -> Path:
    """The checkpoint of the fourth step."""
    return next(
        path
        for path in plan.run.complete_checkpoints()
        if path.name.startswith("iter_0000004") or "step=3-" in path.name
    )


def assert_rest(rest: list[dict[str, Any]], whole: list[dict[str, Any]]) -> None:
    """Every loss and gradient norm after the fourth step is the whole run's."""
    assert rest[-1]["step"] == list(range(HALF + 1, 9))
    assert rest[-1]["loss"] == whole[-1]["loss"][HALF:]
    assert rest[0]["grad_norm"] == whole[0]["grad_norm"][HALF:]


@by_layout
def test_continues_in_the_other_framework(
    layout: str, bridge_server: ForkServer, fork_server: ForkServer, data: str, tmp_path: Path
) -> None:
    """NeMo 2's checkpoint continues in Bridge, and Bridge's, half-way from there, in NeMo 2 again."""
    saves: dict[str, Any] = {"checkpoint_every": HALF, "keep_latest": 2, **LAYOUTS[layout]}
    plan = job(tmp_path / "nemo2", data, **saves)
    whole = train_nemo(fork_server, plan)
    convert(half_way(plan), tmp_path / "to-bridge", "bridge")
    there = job(
        tmp_path / "bridge",
        data,
        **BRIDGE,
        **{**saves, "checkpoint_every": 2},
        resume=str(tmp_path / "to-bridge"),
    )
    assert_rest(train_bridge(bridge_server, there), whole)
    later = there.run.checkpoints / "iter_0000006"
    convert(later, tmp_path / "to-nemo2", "nemo2")
    back = job(tmp_path / "back", data, **saves, resume=str(tmp_path / "to-nemo2"))
    again = train_nemo(fork_server, back)
    assert again[-1]["step"] == [7, 8]
    assert again[-1]["loss"] == whole[-1]["loss"][6:]
    assert again[0]["grad_norm"] == whole[0]["grad_norm"][6:]
