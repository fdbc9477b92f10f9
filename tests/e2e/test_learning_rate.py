"""The rate of every step is that of the command's flags, also where a run resumes with others.

Expected rates are computed here, from the definition of the cosine and of the linear warmup.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from cases import cases
from e2e.jobs import planned, prepared, train
from forkserver import ForkServer

from nemolaunch.job import Job
from nemolaunch.planning import Plan, make_plan

LR, MIN_LR = 1e-3, 1e-4
EXACT = 1e-7  # rates are logged in fp32


def cosine(step: int, *, end: int, warmup: int = 1, lr: float = LR, min_lr: float = MIN_LR) -> float:
    """The rate with which the given step, counted from 1, is trained."""
    done = step - 1
    if done <= warmup:
        return lr * (done + 1) / (warmup + 1)
    return min_lr + (lr - min_lr) * (1 + math.cos(math.pi * (done - warmup) / (end - warmup))) / 2


@pytest.fixture(scope="module")
def begun(fork_server: ForkServer, data: str, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A run that has ended at step 4 of 4."""
    plan = planned(tmp_path_factory.mktemp("begun"), data, max_steps=4)
    (result,) = train(fork_server, plan)
    assert result["lr"] == pytest.approx([cosine(step, end=4) for step in (1, 2, 3, 4)], rel=EXACT)
    return plan


def continued(begun: Plan, folder: Path, data: str, **values: Any) -> Plan:
    """The same run in a copy of its folder, planned again with other flags."""
    shutil.copytree(begun.folder, folder / "run", symlinks=True)
    return planned(folder, data, **{"max_steps": 8, **values})


CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "extended": ({}, {"end": 8}),
    "other rates": ({"lr": 5e-3, "min_lr": 2e-3}, {"end": 8, "lr": 5e-3, "min_lr": 2e-3}),
    "other warmup": ({"warmup_steps": 6}, {"end": 8, "warmup": 6}),
    "other batch size": ({"global_batch_size": 8}, {"end": 8}),
    "the decay ends before the run": ({"decay_steps": 6}, {"end": 6}),
}


@pytest.mark.parametrize(
    "name", cases(CHANGES, ("other warmup", "other batch size", "the decay ends before the run"))
)
def test_a_resumed_run_has_the_rates_of_its_flags(
    name: str, begun: Plan, fork_server: ForkServer, data: str, tmp_path: Path
) -> None:
    flags, schedule = CHANGES[name]
    plan = continued(begun, tmp_path, data, **flags)
    (result,) = train(fork_server, plan)
    assert result["step"] == [5, 6, 7, 8]
    end = schedule["end"]
    expected = [
        cosine(step, **schedule) if step - 1 <= end else schedule.get("min_lr", MIN_LR)
        for step in (5, 6, 7, 8)
    ]
    assert result["lr"] == pytest.approx(expected, rel=EXACT)
    assert plan.resumes is not None
    assert plan.resumes.rate == pytest.approx(expected[0], rel=EXACT)
    assert plan.resumes.rate_before == pytest.approx(MIN_LR, rel=EXACT)


def test_a_shortened_run_has_the_rates_of_the_shorter_schedule(
    fork_server: ForkServer, data: str, tmp_path: Path
) -> None:
    planned_long = planned(tmp_path, data, max_steps=12, checkpoint_every=3)
    with pytest.raises(AssertionError, match="-9"):
        train(fork_server, planned_long, kill_after=5)
    (result,) = train(fork_server, planned(tmp_path, data, max_steps=6, checkpoint_every=3))
    assert result["step"] == [4, 5, 6]
    assert result["lr"] == pytest.approx([cosine(step, end=6) for step in (4, 5, 6)], rel=EXACT)


def test_optimizer_settings_are_those_of_the_flags(
    begun: Plan, fork_server: ForkServer, data: str, tmp_path: Path
) -> None:
    plan = continued(
        begun, tmp_path, data, weight_decay=0.3, adam_beta1=0.8, adam_beta2=0.9, adam_eps=1e-6, max_steps=5
    )
    (result,) = train(fork_server, plan)
    (settings,) = result["optimizer"]
    assert settings["betas"] == [0.8, 0.9]
    assert settings["eps"] == 1e-6
    assert settings["weight_decay"] == [0.0, 0.3]  # norms have none
    assert {f.code for f in plan.findings} >= {"run-of-other-optimizer"}


def test_the_checkpoints_schedule_can_be_kept(
    begun: Plan, fork_server: ForkServer, data: str, tmp_path: Path
) -> None:
    plan = continued(begun, tmp_path, data, lr=5e-3, resume_schedule="checkpoint", max_steps=6)
    assert {f.code for f in plan.findings} >= {"schedule-flags"}
    (result,) = train(fork_server, plan)
    assert result["lr"] == pytest.approx([MIN_LR, MIN_LR], rel=EXACT)


def test_a_stable_phase_is_cooled_down_by_resuming_with_wsd(
    fork_server: ForkServer, data: str, tmp_path: Path
) -> None:
    first = planned(tmp_path, data, max_steps=4, lr_schedule="constant")
    (stable,) = train(fork_server, first)
    assert stable["lr"][1:] == pytest.approx([LR, LR, LR], rel=EXACT)
    cooled = planned(
        tmp_path,
        data,
        max_steps=8,
        lr_schedule="wsd",
        wsd_decay_steps=4,
        wsd_decay_style="linear",
        min_lr=0.0,
    )
    assert not {"lr-jump"} & {f.code for f in cooled.findings}
    (result,) = train(fork_server, cooled)
    assert result["lr"] == pytest.approx([LR, LR * 3 / 4, LR * 2 / 4, LR * 1 / 4], rel=EXACT)


def test_the_plan_tells_of_a_jump_before_anything_starts(begun: Plan, data: str, tmp_path: Path) -> None:
    shutil.copytree(begun.folder, tmp_path / "run", symlinks=True)
    values = {**begun.job.values(), "output_dir": str(tmp_path / "run"), "max_steps": 8, "decay_steps": None}
    plan = make_plan(Job().with_values(**values))
    (jump,) = (f for f in plan.findings if f.code == "lr-jump")
    assert "step 4" in jump.message
    assert f"{MIN_LR:g}" in jump.message
    assert jump.fixes[0].changes == {"resume_schedule": "checkpoint"}


def test_a_checkpoint_of_the_earlier_scheduler_is_resumed_by_the_flags(
    begun: Plan, fork_server: ForkServer, data: str, tmp_path: Path
) -> None:
    """NeMo's own scheduler would take its whole configuration from the checkpoint."""
    plan = continued(begun, tmp_path, data)
    last = plan.run.last_checkpoint()
    assert last is not None
    saved = json.loads(
        json.dumps(fork_server.run("e2e.lr_state:as_nemo_saves", {"checkpoint": str(last)})[0])
    )
    assert saved["max_steps"] == 4
    (result,) = train(fork_server, prepared(plan))
    assert result["lr"] == pytest.approx([cosine(step, end=8) for step in (5, 6, 7, 8)], rel=EXACT)
