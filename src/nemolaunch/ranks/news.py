"""The messages of `--notify` about a plan's run; which process sends which is in docs/observe.md."""

from __future__ import annotations

from collections.abc import Callable

from nemolaunch.planning import Plan
from nemolaunch.run.news import News


def news_of(plan: Plan, say: Callable[[str], None]) -> News:
    """Return the sender of messages about the run; it sends none unless the plan asks for them."""
    name = f"{plan.job.launch.experiment} ({plan.model})"
    return News(plan.run, name, say, wanted=plan.job.logging.notify)
