"""From a job to its plan."""

from __future__ import annotations

from collections.abc import Collection

from nemolaunch.errors import UsageError
from nemolaunch.job import Job, specs
from nemolaunch.planning import Plan, make_plan


def plan(job: Job, *, dev_run: bool = False, force: Collection[str] = (), here: bool = True) -> Plan:
    """Plan a job: look at this machine, the data and the cluster; resolve, check and estimate. Nothing is started.

    What is wrong with the job is in `plan.findings`, all at once; `plan.raise_for_errors()` raises it.

    Args:
        dev_run: shrink the job to a minute or two on this machine, in a run folder of its own.
        force: codes of errors to turn into warnings.
        here: the job is to start from this machine; False for a look at a job meant for another one, of whose memory
            and GPUs this one says nothing.

    Raises:
        UsageError: there is nothing to plan: no model is named, or there is no such model or GPU.
    """
    if not job.model.model_name:
        raise UsageError("a job needs a model: Job(model=...), see `nemolaunch models`")
    given = {spec.name: "given" for spec in specs() if job.get(spec.name) != spec.default}
    return make_plan(job, dev_run=dev_run, force=force, given=given, starts=here)
