"""Where the wall time of a run went: parts that sum to the whole, with restarts, a queue and lost steps."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from report_runs import write_run

from nemolaunch.observe.goodput import Goodput, goodput
from nemolaunch.observe.reader import read_history
from nemolaunch.observe.results import report_values
from nemolaunch.run.folder import RunDir


def steps(
    first: int, last: int, begin: float, step_s: float = 2.0, wait_s: float = 0.5
) -> list[dict[str, Any]]:
    """Rows of steps; the first of them takes three seconds more."""
    rows, now = [], begin
    for number in range(first, last + 1):
        took = step_s + (3.0 if number == first else 0.0)
        now += took
        rows.append({"step": number, "time": now, "loss": 5.0, "step_time_s": took, "data_wait_s": wait_s})
    return rows


def start(step: int, time: float) -> dict[str, Any]:
    return {"event": "start", "step": step, "time": time, "max_steps": 30}


def found(folder: Path) -> Goodput:
    spent = goodput(read_history(folder))
    assert spent is not None
    assert math.isclose(sum(share for _, _, share in spent.shares()), 1.0)
    return spent


def test_the_parts_of_an_uninterrupted_run(tmp_path: Path) -> None:
    rows = [start(0, 1000.0), *steps(1, 10, 1000.0)]  # until 1023
    rows += [{"event": "checkpoint", "step": 10, "time": 1025.0, "seconds": 2.0}]
    rows += [{"step": 10, "time": 1029.0, "val_loss": 5.0, "validation_s": 4.0}]
    rows += [{"event": "end", "step": 10, "time": 1030.0}]
    run = write_run(tmp_path / "run", rows)
    RunDir(run).logs.mkdir(exist_ok=True)
    phases = [
        {"event": "phase", "step": 0, "time": t, "text": s}
        for t, s in ((990.0, "importing"), (995.0, "data"))
    ]
    RunDir(run).phases.write_text("".join(json.dumps(row) + "\n" for row in phases))
    spent = found(run)
    assert spent.wall_s == pytest.approx(40.0)
    assert spent.parts == pytest.approx({
        "training": 15.0, "starting": 10.0, "waiting for data": 5.0, "validating": 4.0, "first step": 3.0,
        "saving checkpoints": 2.0, "other": 1.0,
    })  # fmt: skip
    assert list(spent.parts)[:2] == ["training", "starting"]
    assert spent.sentence.startswith("38% of 40 s; starting 25%, waiting for data 12%")
    values = report_values(RunDir(run))["goodput"]
    assert values["share"] == pytest.approx(15 / 40)
    assert sum(values["parts_s"].values()) == pytest.approx(values["wall_s"])


def test_steps_that_a_later_attempt_repeats_are_lost(tmp_path: Path) -> None:
    rows = [start(0, 1000.0), *steps(1, 10, 1000.0, wait_s=0.0)]  # killed after step 10, at 1023
    rows += [start(4, 1500.0), *steps(5, 10, 1500.0, wait_s=0.0)]  # started again by its user, until 1515
    spent = found(write_run(tmp_path / "run", rows))
    assert spent.parts == pytest.approx(
        {"training": 20.0, "steps lost and repeated": 12.0, "first step": 6.0}
    )
    assert spent.wall_s == pytest.approx(23.0 + 15.0)


def test_rows_of_several_steps_count_once(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [start(5, 1000.0)]
    rows += [{"step": n, "time": 1000.0 + 2 * (n - 5), "loss": 5.0, "step_time_s": 2.0} for n in (10, 20, 30)]
    spent = found(write_run(tmp_path / "run", rows))
    assert spent.parts == pytest.approx({"training": 50.0})


def test_a_queue_and_requeues_are_waited_for_on_slurm(tmp_path: Path) -> None:
    rows = [start(0, 1100.0), *steps(1, 10, 1100.0, wait_s=0.0)]  # killed at 1123
    rows += [start(10, 1250.0), *steps(11, 20, 1250.0, wait_s=0.0)]  # until 1273
    rows += [start(20, 9100.0), *steps(21, 30, 9100.0, wait_s=0.0)]  # submitted by the user again, until 9123
    run = RunDir(write_run(tmp_path / "run", rows))
    run.slurm.mkdir()
    run.slurm_attempts.write_text(
        "- 0 1000 submitted\n7 0 1060 -1 n1\n7 1 1200 9 n2\n- 0 9000 submitted\n8 0 9050 19 n1\n"
    )
    spent = found(run.root)
    assert spent.parts == pytest.approx({
        "training": 60.0, "waiting in the queue": 60.0 + 50.0, "between attempts": 77.0, "starting": 40.0 + 50.0 + 50.0,
        "first step": 9.0,
    })  # fmt: skip


def test_clocks_that_disagree_do_not_exceed_the_whole(tmp_path: Path) -> None:
    rows = [start(0, 1000.0), *steps(1, 10, 1000.0)]
    rows += [{"event": "checkpoint", "step": 10, "time": 1023.0, "seconds": 77.0}]
    spent = found(write_run(tmp_path / "run", rows))
    assert spent.wall_s == pytest.approx(23.0)
    assert spent.parts["saving checkpoints"] == pytest.approx(23.0 * 77 / 100)


def test_before_the_first_step_there_is_none(tmp_path: Path) -> None:
    assert goodput(read_history(write_run(tmp_path / "run", [start(0, 1000.0)]))) is None
