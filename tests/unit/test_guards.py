"""What the guards notice in the rows of a run, and what they let pass."""

from __future__ import annotations

import math
import random
from typing import Any

from nemolaunch.nemo2.guards import Guards


def kinds(rows: list[dict[str, Any]]) -> list[tuple[int, str]]:
    """(row number, kind) of all that is noticed."""
    watch = Guards()
    return [(i, kind) for i, row in enumerate(rows) for kind, _ in watch.seen(row)]


def falling(count: int) -> list[dict[str, Any]]:
    """A loss that falls with noise, at even speed."""
    noise = random.Random(0)
    return [
        {
            "loss": 3 + 6 * math.exp(-i / 50) + noise.gauss(0, 0.05),
            "grad_norm": 1.0,
            "step_time_s": 0.5 + noise.random() / 10,
            "data_wait_s": 0.01,
        }
        for i in range(count)
    ]


def test_an_ordinary_run_is_let_pass() -> None:
    assert kinds(falling(1000)) == []


def test_a_loss_that_jumps_is_noticed_once() -> None:
    rows = falling(400)
    for i in (300, 301, 302):
        rows[i]["loss"] += 2.0
    assert kinds(rows) == [(300, "loss spike")]


def test_no_number_is_noticed_when_it_begins() -> None:
    rows = falling(100)
    rows[40]["grad_norm"] = math.inf
    rows[60]["loss"] = rows[61]["loss"] = math.nan
    assert kinds(rows) == [(40, "not finite"), (60, "not finite")]


def test_waiting_for_data_is_noticed_when_it_lasts() -> None:
    rows = falling(100)
    rows[20]["data_wait_s"] = 0.4
    assert kinds(rows) == []
    for row in rows[50:60]:
        row["data_wait_s"] = 0.4
    assert kinds(rows) == [(54, "data starvation")]


def test_slow_steps_are_noticed_when_they_last() -> None:
    rows = falling(200)
    rows[80]["step_time_s"] = 9.0
    assert kinds(rows) == []
    for row in rows[100:120]:
        row["step_time_s"] = 2.0
    assert kinds(rows) == [(104, "slow")]
