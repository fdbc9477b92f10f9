"""Runs of Megatron-Bridge that resume with other flags, or change their batch size: as with NeMo 2, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bridge.test_same_training import BRIDGE, job, train_bridge
from cases import cases
from e2e.jobs import planned
from e2e.jobs import train as train_nemo
from forkserver import ForkServer, JobFailed
from held_out import held_out_corpora

from nemolaunch.planning import Plan
from nemolaunch.run import metrics

# Whether each rank keeps the whole optimizer -> what the run resumes with
CHANGES: dict[str, dict[str, Any]] = {
    "sharded optimizer": {
        "lr": 5e-3,
        "min_lr": 2e-3,
        "warmup_steps": 6,
        "weight_decay": 0.3,
        "adam_beta1": 0.8,
        "adam_eps": 1e-6,
        "global_batch_size": 8,
    },
    "whole optimizer": {"lr": 5e-3, "min_lr": 2e-3, "weight_decay": 0.0},
}
# From 2 to 8 over 12 sequences: a larger batch every 4. Worked out by hand.
RAMP: dict[str, Any] = {
    "max_steps": 8,
    "num_gpus": 2,
    "global_batch_size": 8,
    "rampup_batch_size": "2:2:12",
    "checkpoint_every": 3,
    "val_check_interval": 4,
    "limit_val_batches": 1,
}
SIZES = [2, 2, 4, 6, 8, 8, 8, 8]
READ = [2, 4, 8, 14, 22, 30, 38, 46]


def rows(plan: Plan) -> list[dict[str, Any]]:
    """The steps that count."""
    return [row for row in metrics.current(metrics.read(plan.run.metrics)) if "loss" in row]


def figures(plan: Plan) -> list[dict[str, Any]]:
    names = ("step", "loss", "grad_norm", "samples")
    return [{name: row[name] for name in names} for row in rows(plan)]


@pytest.mark.parametrize(
    "name",
    cases(CHANGES, ("whole optimizer",)),
)
def test_a_resumed_run_does_what_its_flags_say(
    name: str, bridge_server: ForkServer, fork_server: ForkServer, data: str, tmp_path: Path
) -> None:
    """Four steps, then four with other rates and settings, and then one more with those of the beginning."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    common: dict[str, Any] = {"disable_dist_optim": name == "whole optimizer"}
    found = []
    for backend, own in (("nemo2", {}), ("bridge", BRIDGE)):
        folder = tmp_path / backend
        plan = job(folder, data, max_steps=4, **common, **own)
        model = {"model_name": plan.job.model.model_name, **common, **own}
        for values in ({}, {"max_steps": 8, **CHANGES[name]}, {"max_steps": 9}):
            plan = planned(folder, data, **model, **values) if values else plan
            train_bridge(bridge_server, plan) if own else train_nemo(fork_server, plan)
        found.append(plan)
    nemo, bridge = found
    assert figures(bridge) == figures(nemo)
    assert [row["step"] for row in rows(bridge)] == list(range(1, 10))
    rates = [row["lr"] for row in rows(bridge)]
    assert rates == pytest.approx([row["lr"] for row in rows(nemo)], rel=1e-7)
    events = EventAccumulator(str(bridge.run.tensorboard)).Reload().Scalars("learning-rate")
    assert [event.value for event in events] == pytest.approx(rates, rel=1e-6)


def test_the_batch_size_grows_as_planned(
    bridge_server: ForkServer, fork_server: ForkServer, tmp_path: Path
) -> None:
    """A run killed in the ramp and resumed; then, with another ramp, continued at the sample reached.

    Of the new ramp's 120 sequences, a larger batch comes every 40, and 46 are read. Validation does not depend on it.
    """
    data: dict[str, Any] = {"dataset_dir": [str(held_out_corpora(tmp_path / "corpora"))], "split": None}
    nemo = job(tmp_path / "nemo2", "", **RAMP, **data)
    train_nemo(fork_server, nemo)
    plan = job(tmp_path / "bridge", "", **RAMP, **data, **BRIDGE)
    with pytest.raises(JobFailed, match="-9"):
        train_bridge(bridge_server, plan, kill_after=4)
    first, _ = train_bridge(bridge_server, plan)
    assert first["step"] == [4, 5, 6, 7, 8]
    assert first["samples"] == [0, *READ][3:-1]
    assert figures(plan) == figures(nemo)
    assert [row["global_batch_size"] for row in rows(plan)] == SIZES
    assert [row["samples"] for row in rows(plan)] == READ
    assert sorted(path.name for path in plan.run.checkpoints.glob("iter_*")) == [
        f"iter_000000{step}" for step in (3, 6, 8)
    ]
    found, right = (
        {row["step"]: row["val_loss"] for row in metrics.read(each.run.metrics) if "val_loss" in row}
        for each in (plan, nemo)
    )
    assert sorted(found) == [4, 8]
    assert found == pytest.approx(right, rel=1e-6)

    continued: dict[str, Any] = {**RAMP, "rampup_batch_size": "2:2:120", "max_steps": 10}
    for each, own in ((nemo, {}), (plan, BRIDGE)):
        model = {"model_name": each.job.model.model_name}
        again = planned(each.run.root.parent, "", **continued, **data, **own, **model)
        assert again.batch_sizes.samples(10) == 46 + 4 + 4
        train_bridge(bridge_server, again) if own else train_nemo(fork_server, again)
    assert figures(plan) == figures(nemo)
    assert [row["samples"] for row in rows(plan)][-2:] == [50, 54]


@pytest.mark.long
def test_the_number_of_copies_of_the_optimizer_may_change(
    bridge_server: ForkServer, data: str, tmp_path: Path
) -> None:
    """A checkpoint of either layout continues in the other, with the losses of the run that was never stopped."""
    layout: dict[str, Any] = {"num_gpus": 2, "checkpoint_every": 4, **BRIDGE}
    found = {}
    for copies in (1, 2):
        plan = job(tmp_path / str(copies), data, num_distributed_optimizer_instances=copies, **layout)
        train_bridge(bridge_server, plan)
        found[copies] = plan
    whole = [row["loss"] for row in rows(found[1])]
    assert [row["loss"] for row in rows(found[2])] == pytest.approx(whole, rel=1e-6)
    for copies, other in ((1, 2), (2, 1)):
        start = found[other].run.checkpoints / "iter_0000004"
        layout |= {"num_distributed_optimizer_instances": copies, "resume": str(start)}
        plan = job(tmp_path / f"from {other}", data, **layout)
        first, _ = train_bridge(bridge_server, plan)
        assert first["loss"] == pytest.approx(whole[4:], rel=1e-6)
