"""What the guards notice in the rows of a run, and what they let pass."""

from __future__ import annotations

import math
import random
from typing import Any

from nemolaunch.ranks.guards import LossGuard, Pace, PaceGuard, RankGuard


def kinds(rows: list[dict[str, Any]]) -> list[tuple[int, str]]:
    """(row number, kind) of all that is noticed when it begins."""
    losses, pace = LossGuard(), PaceGuard()
    found = []
    for i, row in enumerate(rows):
        notice = losses.look(row["loss"], row["grad_norm"])
        found += [(i, notice.kind)] if notice and notice.begins else []
        found += [(i, notice.kind) for notice in pace.look(row)]
    return found


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


def test_a_spike_in_the_first_steps_is_noticed() -> None:
    rows = falling(60)
    rows[10]["loss"] += 2.0
    rows[22]["grad_norm"] = 50.0
    assert kinds(rows) == [(10, "loss spike"), (22, "gradient spike")]


def test_the_fast_descent_of_the_first_steps_is_let_pass_and_hides_no_spike() -> None:
    rows = [{"loss": 4.0 + 8.0 * 0.8**i, "grad_norm": 30.0 * 0.8**i + 0.5} for i in range(60)]
    assert kinds(rows) == []
    rows[25]["loss"] += 1.0  # still below the losses of the first eight steps
    assert kinds(rows) == [(25, "loss spike")]


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
    assert kinds(rows) == [(104, "slow steps")]


def compared(*rounds: list[tuple[float, float]]) -> list[str]:
    """What comparisons of ranks say, each a list of (seconds of the probe, seconds of waiting for data)."""
    guard = RankGuard()
    return [
        notice.text
        for ranks in rounds
        for notice in guard.look(
            [Pace(f"node{i}", probe, wait, 1.0) for i, (probe, wait) in enumerate(ranks)]
        )
    ]


def test_ranks_alike_are_let_pass() -> None:
    assert compared(*[[(0.01, 0.0), (0.011, 0.1), (0.0105, 0.05)]] * 5) == []


def test_a_rank_that_computes_slowly_is_named_once_it_lasts() -> None:
    slow = [(0.01, 0.0), (0.01, 0.0), (0.02, 0.0)]
    even = [(0.01, 0.0)] * 3
    assert compared(slow, slow, even, slow, slow) == []
    assert compared(*[slow] * 6) == ["rank 2 on node2 computes 2.0 times slower than the others"]


def test_a_rank_that_waits_for_its_data_is_named_once_it_lasts() -> None:
    late = [(0.01, 0.0), (0.01, 0.5)]
    assert compared(*[late] * 6) == ["rank 1 on node1 waits for data 50% of a step longer than the others"]
