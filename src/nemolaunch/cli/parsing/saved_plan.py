"""`--plan FILE`: turn a saved plan back into a job."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nemolaunch.catalogue import ModelSpec
from nemolaunch.cli.parsing.flags import overlaid, preset_flags
from nemolaunch.job import Job
from nemolaunch.planning import Plan

# These belong to the command that started the earlier run, not to the job.
NOT_KEPT = {"dependency": None, "detach": False}
# Values that are computed from others unless they are given
LENGTH = frozenset(
    {
        "max_steps",
        "max_tokens",
        "tokens_per_param",
        "global_batch_size",
        "global_batch_tokens",
        "rampup_batch_size",
        "seq_length",
    }
)
DEPENDENT = (
    (LENGTH, ("decay_steps", "wsd_decay_steps", "warmup_steps", "val_check_interval", "limit_val_batches")),
    (frozenset({"decay_steps", "constant_steps", "lr_schedule"}), ("wsd_decay_steps", "warmup_steps")),
    (frozenset({"lr"}), ("min_lr",)),
)


def job_of_plan(
    file: Path, given: Mapping[str, Any], read: Callable[[str], str] | None = None
) -> tuple[Job, ModelSpec | None, dict[str, str], tuple[str, ...]]:
    """Return the job of a saved plan with flags applied, its model, the origins of values, and the ignored codes.

    The run continues in the plan's folder, unless flags name another. The model is the one in the plan, unless a
    flag names one, which is then looked up.

    Args:
        read: reads the file if it is on another machine.

    Raises:
        NemolaunchError: the file is not a plan.
    """
    plan = _plan_elsewhere(file, read) if read else Plan.load(file / "plan.json" if file.is_dir() else file)
    asked = {**preset_flags(given.get("preset")), **given}
    values = overlaid({**plan.job.values(), **NOT_KEPT, **_reopened(plan, asked)}, asked)
    if not {"experiment", "output_dir"} & given.keys():
        values["output_dir"] = plan.folder
    origins = dict.fromkeys(plan.origins, f"plan {file}")
    origins.update({name: "flag" if name in given else f"preset {given['preset']}" for name in asked})
    model = None if "model_name" in given else plan.model_row
    return Job().with_values(**values), model, origins, plan.forced


def _reopened(plan: Plan, asked: Mapping[str, Any]) -> dict[str, None]:
    """Return the values to compute again because a flag changes what they were computed from.

    Without this, a run extended to 400 steps would keep the decay and the validation interval of its first 200.
    """
    names = {name for sources, found in DEPENDENT if sources & asked.keys() for name in found}
    return dict.fromkeys(names & set(plan.computed))


def _plan_elsewhere(file: Path, read: Callable[[str], str]) -> Plan:
    name = str(file if file.suffix == ".json" else file / "plan.json")
    with tempfile.NamedTemporaryFile("w", suffix=".json") as copy:
        copy.write(read(name))
        copy.flush()
        return Plan.load(Path(copy.name))
