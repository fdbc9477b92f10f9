"""`--plan FILE`: turn a saved plan back into a job."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nemolaunch.catalogue import ModelSpec
from nemolaunch.cli.parsing.cluster_profile import ClusterProfile
from nemolaunch.cli.parsing.flags import overlaid, preset_flags
from nemolaunch.job import Job
from nemolaunch.planning import Plan
from nemolaunch.planning.open_values import open_values
from nemolaunch.run.folder import RunDir

# These belong to the command that started the earlier run, not to the job.
NOT_KEPT = {"dependency": None, "detach": False}


def job_of_plan(
    file: Path,
    given: Mapping[str, Any],
    read: Callable[[str], str] | None = None,
    profile: ClusterProfile | None = None,
) -> tuple[Job, ModelSpec | None, dict[str, str], tuple[str, ...]]:
    """Return the job of a saved plan with flags applied, its model, the origins of values, and the ignored codes.

    The run continues in its folder, wherever that has been moved, unless flags name another. The model is the one in
    the plan, unless a flag names one, which is then looked up.

    Args:
        read: reads the file if it is on another machine.
        profile: of the cluster to move the run to.

    Raises:
        NemolaunchError: the file is not a plan.
    """
    plan = _plan_elsewhere(file, read) if read else _plan_here(file)
    from_preset = preset_flags(given.get("preset"))
    asked = {**(profile.values if profile else {}), **from_preset, **given}
    values = overlaid({**plan.job.values(), **NOT_KEPT, **open_values(plan, asked)}, asked)
    if not {"experiment", "output_dir"} & given.keys():
        values["output_dir"] = _folder_elsewhere(plan, file) if read else plan.folder
    origins = dict.fromkeys(plan.origins, f"plan {file}")
    if profile:
        origins.update(dict.fromkeys(profile.values, f"cluster {profile.name}"))
    origins.update(dict.fromkeys(from_preset, f"preset {given.get('preset')}"))
    origins.update(dict.fromkeys(given, "flag"))
    model = None if "model_name" in given else plan.model_row
    return Job().with_values(**values), model, origins, plan.forced


def _plan_here(file: Path) -> Plan:
    """Return the plan of a run folder, or of its plan.json, wherever the folder has been moved; else that of a file."""
    run = RunDir((file if file.is_dir() else file.absolute().parent).absolute())
    is_run = file.is_dir() or (file.name == run.plan.name and (run.identity.exists() or run.logs.is_dir()))
    return Plan.of_run(run) if is_run else Plan.load(file)


def _folder_elsewhere(plan: Plan, file: Path) -> str:
    """Return the folder that was named on another machine; the plan's own if it is the same by its end."""
    named = file.parent if file.name == "plan.json" else file
    if named.suffix == ".json" or Path(plan.folder).parts[-len(named.parts) :] == named.parts:
        return plan.folder
    return str(named)


def _plan_elsewhere(file: Path, read: Callable[[str], str]) -> Plan:
    name = str(file if file.suffix == ".json" else file / "plan.json")
    with tempfile.NamedTemporaryFile("w", suffix=".json") as copy:
        copy.write(read(name))
        copy.flush()
        return Plan.load(Path(copy.name))
