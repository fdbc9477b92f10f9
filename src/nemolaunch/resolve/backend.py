"""What trains a job: NeMo 2, or Megatron-Bridge in an environment of its own."""

from __future__ import annotations

from nemolaunch.facts import Facts
from nemolaunch.job import Job

NEMO2, BRIDGE = "nemo2", "bridge"


def backend_of(job: Job, facts: Facts) -> tuple[str, str]:
    """Return what trains a job, and why. On Slurm it is NeMo 2 unless the job says otherwise."""
    if job.launch.backend != "auto":
        return job.launch.backend, "given"
    found = facts.interpreter
    if found is not None and found.bridge and facts.host.nemo is None:
        return BRIDGE, f"{found.path} has Megatron-Bridge, and this environment no NeMo"
    return NEMO2, "the default"


def trains_with_bridge(job: Job) -> bool:
    """Return whether Megatron-Bridge trains a resolved job."""
    return job.launch.backend == BRIDGE


def interpreter_of(job: Job, facts: Facts) -> str | None:
    """Return the interpreter that trains a resolved job on this machine, if it is not the one of this command."""
    if not trains_with_bridge(job) or facts.interpreter is None or facts.interpreter.here:
        return None
    return facts.interpreter.path
