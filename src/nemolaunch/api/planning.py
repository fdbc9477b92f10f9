"""From a job to its plan."""

from __future__ import annotations

from collections.abc import Collection

from nemolaunch.errors import UsageError
from nemolaunch.job import Job, specs
from nemolaunch.planning import Plan, make_plan


def plan(job: Job, *, dev_run: bool = False, force: Collection[str] = (), here: bool = True) -> Plan:
    """Plan a job: inspect this machine, the data and the cluster; resolve, check and estimate. Nothing is started.

    All problems of the job are in `plan.findings`; `plan.raise_for_errors()` raises an exception for the errors.

    Args:
        dev_run: shrink the job to a minute or two on this machine, in a separate run folder.
        force: codes of errors to turn into warnings.
        here: whether the job will be started from this machine; False to plan for a different machine, whose memory
            and GPUs are not known here.

    Raises:
        UsageError: there is nothing to plan: no model is named, or the model or GPU does not exist.
    """
    if not job.model.model_name:
        raise UsageError("a job needs a model: Job(model=...), see `nemolaunch models`")
    given = {spec.name: "given" for spec in specs() if job.get(spec.name) != spec.default}
    return make_plan(job, dev_run=dev_run, force=force, given=given, starts=here)
