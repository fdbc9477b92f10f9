"""`--plan FILE`: a saved plan as a job again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemolaunch.catalogue import Model
from nemolaunch.cli.flags import overlaid
from nemolaunch.job import Job
from nemolaunch.plan import Plan


def job_of_plan(
    file: Path, given: Mapping[str, Any]
) -> tuple[Job, Model | None, dict[str, str], tuple[str, ...]]:
    """The job of a saved plan with flags over it, its model as it was then, where values come from, and the
    codes that were let pass.

    The run goes on in the plan's own folder, unless flags name another. A model that a flag names is looked
    up anew.

    Raises:
        NemolaunchError: the file is no plan.
    """
    plan = Plan.load(file / "plan.json" if file.is_dir() else file)
    values = overlaid(plan.values, given)
    if not {"experiment", "output_dir"} & given.keys():
        values["output_dir"] = plan.folder
    origins = dict.fromkeys(plan.origins, f"plan {file}")
    origins.update(dict.fromkeys(given, "flag"))
    model = None if "model_name" in given else plan.model_row
    return Job().with_values(**values), model, origins, plan.forced
