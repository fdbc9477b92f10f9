"""The comparison of several runs: headline figures side by side, and the flags that differ."""

from __future__ import annotations

from collections.abc import Sequence

from nemolaunch.job.settings import spread
from nemolaunch.observe.report.run_page import RunPage
from nemolaunch.observe.report.sections import flag_name, flag_value, shown_value
from nemolaunch.planning import Plan


def headline_table(pages: Sequence[RunPage]) -> tuple[list[str], list[list[str]]]:
    """Return the labels of the headline figures and the values of each run."""
    found = [{f.label: f.brief or f.value for f in page.figures if f.compared} for page in pages]
    labels = list(dict.fromkeys(label for values in found for label in values))
    return labels, [[values.get(label, "–") for label in labels] for values in found]


def flag_differences(given: Sequence[Plan | None]) -> list[tuple[str, list[str]]]:
    """Return (flag, value in each run) for every flag that differs, apart from the names of the runs.

    A flag that an older plan does not know has its default value; each setting of the recipe has a row of its own.
    """
    plans = [spread(plan.job.values()) if plan else {} for plan in given]
    names = dict.fromkeys(name for values in plans for name in values)
    table = []
    for name in names:
        row = [shown_value(name, values[name]) if name in values else "–" for values in plans]
        exact = {flag_value(values[name]) if name in values else "–" for values in plans}
        if len(exact) > 1 and name not in ("output_dir", "experiment"):
            table.append((flag_name(name), row))
    return table
