"""The guards in real runs: what they see, what they do about it, and where it is shown."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from e2e.jobs import planned
from forkserver import ForkServer, JobFailed

from nemolaunch.cli.commands import status as status_command
from nemolaunch.observe.reader import read_history
from nemolaunch.observe.status import status
from nemolaunch.planning import Plan
from nemolaunch.run import metrics


def run(server: ForkServer, plan: Plan, fault: str, *, rank: int = 0, steps: tuple[int, ...] = ()) -> Any:
    given = {"plan_file": str(plan.run.plan), "fault": fault, "rank": rank, "steps": list(steps)}
    return server.run("e2e.faulty_plan:train", given, nproc=plan.world_size)


def seen(plan: Plan) -> list[tuple[int, str]]:
    """(step, kind) of every notice in the metrics."""
    ordinary = ("start", "end", "checkpoint")
    rows = metrics.read(plan.run.metrics)
    return [(row["step"], row["event"]) for row in rows if row.get("event", "end") not in ordinary]


def test_an_update_of_nan_on_one_rank_is_left_out_by_all(
    fork_server: ForkServer, data: str, tmp_path: Path
) -> None:
    plan = planned(tmp_path, data, max_steps=5, num_gpus=2, on_not_finite="skip", disable_dist_optim=True)
    first, second = run(fork_server, plan, "nan", rank=1, steps=(3,))
    assert seen(plan) == [(3, "not finite")]
    assert math.isnan(first["losses"][2])
    assert all(map(math.isfinite, first["losses"][3:]))
    assert first["norms"][2] == first["norms"][1]  # nothing was changed by the third update
    assert first["norms"] == second["norms"]
    rows = [row for row in metrics.read(plan.run.metrics) if "loss" in row]
    assert [row.get("skipped_updates") for row in rows] == [None, None, 1, 1, 1]


def test_too_many_updates_left_out_end_the_run(fork_server: ForkServer, data: str, tmp_path: Path) -> None:
    plan = planned(tmp_path, data, max_steps=20, on_not_finite="skip")
    with pytest.raises(JobFailed, match="10 updates in a row were skipped"):
        run(fork_server, plan, "nan", steps=tuple(range(3, 20)))
    assert seen(plan) == [(step, "not finite") for step in range(3, 14)]


def test_nan_ends_the_run_by_default(fork_server: ForkServer, data: str, tmp_path: Path) -> None:
    plan = planned(tmp_path, data, max_steps=5, num_gpus=2)
    with pytest.raises(JobFailed, match=r"found NaN|not finite"):
        run(fork_server, plan, "nan", rank=1, steps=(3,))
    assert read_history(plan.run.root).last_step == 2


def test_a_spike_is_told_left_out_or_ends_the_run(fork_server: ForkServer, data: str, tmp_path: Path) -> None:
    for policy in ("warn", "skip", "stop"):
        plan = planned(tmp_path, data, max_steps=10, on_loss_spike=policy, output_dir=str(tmp_path / policy))
        if policy == "stop":
            with pytest.raises(JobFailed, match=r"loss spike at step 8: .* \(--on-loss-spike stop\)"):
                run(fork_server, plan, "spike", steps=(8,))
        else:
            (found,) = run(fork_server, plan, "spike", steps=(8,))
            assert (found["norms"][7] == found["norms"][6]) == (policy == "skip")
        assert seen(plan) == [(8, "loss spike")]
        (mark,) = read_history(plan.run.root).marks
        assert (mark.step, mark.kind) == (8, "loss spike")


def test_a_rank_that_computes_slowly_is_named(
    fork_server: ForkServer, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = planned(tmp_path, data, max_steps=8, num_gpus=2)
    run(fork_server, plan, "slow", rank=1)
    assert seen(plan) == [(6, "slow rank")]
    (notice,) = status(plan.run.root).notices
    assert "rank 1 on" in notice
    assert status_command.main([str(plan.run.root)]) == 0
    assert notice in capsys.readouterr().out
    assert status_command.main([str(plan.run.root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notices"] == [notice]


def test_a_rank_that_waits_for_data_is_named(fork_server: ForkServer, data: str, tmp_path: Path) -> None:
    plan = planned(tmp_path, data, max_steps=8, num_gpus=2, on_slowness="stop")
    with pytest.raises(JobFailed, match=r"rank 1 on .* waits for data"):
        run(fork_server, plan, "late data", rank=1)
    assert seen(plan) == [(6, "slow rank")]


def test_a_run_that_stands_still_says_so(fork_server: ForkServer, data: str, tmp_path: Path) -> None:
    plan = planned(tmp_path, data, max_steps=4)
    run(fork_server, plan, "pause", steps=(3,))
    assert (2, "no progress") in seen(plan)
