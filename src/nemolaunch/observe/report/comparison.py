"""What tells several runs apart: headline figures side by side, and the flags that differ."""

from __future__ import annotations

from collections.abc import Sequence

from nemolaunch.observe.report.run_page import RunPage
from nemolaunch.observe.report.sections import flag_name, flag_value
from nemolaunch.planning import Plan


def headline_table(pages: Sequence[RunPage]) -> tuple[list[str], list[list[str]]]:
    """Labels of the headline figures, and each run's values."""
    found = [{f.label: f.brief or f.value for f in page.figures if f.compared} for page in pages]
    labels = list(dict.fromkeys(label for values in found for label in values))
    return labels, [[values.get(label, "–") for label in labels] for values in found]


def flag_differences(given: Sequence[Plan | None]) -> list[tuple[str, list[str]]]:
    """(flag, value in each run) for every flag that is not the same in all; the folder is no difference.

    A flag that a plan does not know, because it is older, has its default.
    """
    plans = [plan.job.values() if plan else {} for plan in given]
    names = dict.fromkeys(name for values in plans for name in values)
    table = []
    for name in names:
        row = [flag_value(values[name]) if name in values else "–" for values in plans]
        if len(set(row)) > 1 and name not in ("output_dir", "experiment"):
            table.append((flag_name(name), row))
    return table
