"""The learning rate that the plan says, beside the one that was used."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nemolaunch.observe.series import Series
from nemolaunch.planning import Plan
from nemolaunch.run.folder import RunDir
from nemolaunch.run.metrics import tail_rows

POINTS = 500
TOLERANCE = 1e-5  # rates are logged in fp32


@dataclass(frozen=True)
class OtherRate:
    """A step that was trained at another rate than the plan's."""

    step: int
    rate: float
    planned: float

    def __str__(self) -> str:
        return f"step {self.step:,} was trained at the learning rate {self.rate:.4g}, the plan's is {self.planned:.4g}"


def planned_rates(plan: Plan | None) -> Series:
    """Return the plan's rates by step, from where it resumed to its last step; empty if they are not known."""
    series = Series()
    if plan is None or not _is_known(plan):
        return series
    first, last, schedule = _first_step(plan), plan.max_steps, plan.schedule
    for step in sorted({first + (last - first) * i // POINTS for i in range(POINTS + 1)}):
        series.append(step, schedule.rate(step - 1))
    return series


def other_rate(run: RunDir, plan: Plan) -> OtherRate | None:
    """Return the last of the newest steps that was not trained at the plan's rate; None if all were."""
    if not _is_known(plan):
        return None
    schedule = plan.schedule
    for row in reversed(tail_rows(run.metrics)):
        step, rate = row.get("step"), row.get("lr")
        if not isinstance(step, int) or not isinstance(rate, (int, float)) or step < _first_step(plan):
            continue
        planned = schedule.rate(step - 1)
        if not math.isclose(rate, planned, rel_tol=TOLERANCE, abs_tol=1e-12):
            return OtherRate(step, float(rate), planned)
    return None


def _first_step(plan: Plan) -> int:
    return plan.resumes.step + 1 if plan.resumes else 1


def _is_known(plan: Plan) -> bool:
    """Return whether the plan's schedule was applied: plans before 0.3 left it to NeMo and to the checkpoint."""
    return bool(plan.computed) and bool(plan.job.batch.max_steps)
