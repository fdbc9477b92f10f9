"""`--plan FILE`: a saved plan as a job again."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nemolaunch.catalogue import ModelSpec
from nemolaunch.cli.parsing.flags import overlaid, preset_flags
from nemolaunch.job import Job
from nemolaunch.planning import Plan

# Of the command that started the run before, not of the job: those jobs are over, that terminal has gone.
ONLY_THEN = {"dependency": None, "detach": False}


def job_of_plan(
    file: Path, given: Mapping[str, Any], read: Callable[[str], str] | None = None
) -> tuple[Job, ModelSpec | None, dict[str, str], tuple[str, ...]]:
    """The job of a saved plan with flags over it, its model as it was then, where values come from, and the
    codes that were let pass.

    The run goes on in the plan's own folder, unless flags name another. A model that a flag names is looked
    up anew. `read` reads the file where it is on another machine.

    Raises:
        NemolaunchError: the file is no plan.
    """
    plan = _plan_elsewhere(file, read) if read else Plan.load(file / "plan.json" if file.is_dir() else file)
    asked = {**preset_flags(given.get("preset")), **given}
    values = overlaid({**plan.job.values(), **ONLY_THEN}, asked)
    if not {"experiment", "output_dir"} & given.keys():
        values["output_dir"] = plan.folder
    origins = dict.fromkeys(plan.origins, f"plan {file}")
    origins.update({name: "flag" if name in given else f"preset {given['preset']}" for name in asked})
    model = None if "model_name" in given else plan.model_row
    return Job().with_values(**values), model, origins, plan.forced


def _plan_elsewhere(file: Path, read: Callable[[str], str]) -> Plan:
    name = str(file if file.suffix == ".json" else file / "plan.json")
    with tempfile.NamedTemporaryFile("w", suffix=".json") as copy:
        copy.write(read(name))
        copy.flush()
        return Plan.load(Path(copy.name))
