"""Speed and time left as shown during a run."""

from __future__ import annotations

from typing import Any

from nemolaunch.cli.views.pace import RecentSpeed


def row(step: int, time: float, speed: float = 8000.0) -> dict[str, Any]:
    return {"step": step, "time": time, "loss": 7.0, "step_time_s": 0.5, "tokens_per_s": speed}


def test_the_first_step_alone_gives_an_estimate() -> None:
    pace = RecentSpeed()
    pace.add(row(1, 100.0))
    assert pace.left_s(101) == 50.0
    assert pace.tokens_per_s() == 8000.0


def test_a_slow_step_after_a_save_does_not_move_the_speed_and_counts_once_in_the_time_left() -> None:
    pace = RecentSpeed()
    for step in range(1, 11):
        pace.add(row(step, 100.0 + 0.5 * step))
    pace.add(row(11, 109.5, 1000.0))  # 4.5 s instead of 0.5
    assert pace.tokens_per_s() == 8000.0
    assert pace.left_s(111) == 100 * 0.9


def test_time_while_the_run_was_stopped_is_not_counted() -> None:
    pace = RecentSpeed()
    for step in range(1, 6):
        pace.add(row(step, 100.0 + step))
    for step in range(4, 7):  # resumed from the checkpoint at step 3, an hour later
        pace.add(row(step, 3700.0 + 2 * step))
    assert pace.left_s(16) == 20.0
