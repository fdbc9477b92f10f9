"""Which jobs in the queue are a run's own: not those of a run it was copied from, or that was in its place before."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from nemolaunch.planning import Plan
from nemolaunch.run.folder import RunDir
from nemolaunch.slurm import batch_job
from nemolaunch.slurm import queue as slurm_queue
from nemolaunch.slurm.queue import QueuedJob, whole_job
from nemolaunch.system import folder_identity


def names(plan: Plan) -> tuple[str, ...]:
    """Return the names that jobs of the run may have: by its folder, and by the one it was submitted from."""
    own = folder_identity.current(plan.run.root)
    earlier = [batch_job.job_name(plan, own.path)] if own else []
    return tuple(dict.fromkeys([batch_job.job_name(plan), *earlier]))


def queued(plan: Plan, queue: Mapping[str, Sequence[QueuedJob]] | None = None) -> list[QueuedJob]:
    """Return the run's own jobs in the queue, the running one first.

    Args:
        queue: jobs by name, if already known.

    Raises:
        slurm_queue.Unreachable: Slurm cannot be reached.
    """
    if folder_identity.is_copy(plan.run.root):
        return []
    known = slurm_queue.jobs_by_name(names(plan)) if queue is None else queue
    ids = recorded(plan.run)
    found = [
        job
        for name in names(plan)
        for job in known.get(name, ())
        if whole_job(job.id) in ids or (name == batch_job.job_name(plan) and _is_later(plan.run, job))
    ]
    return sorted(found, key=lambda job: not job.active)


def _is_later(run: RunDir, job: QueuedJob) -> bool:
    """Return whether a job by this folder's name was submitted after the run was made; it may be of an earlier run."""
    own = folder_identity.current(run.root)
    if own is None:
        return True  # a run of an earlier version
    if own.path != str(run.root):
        return False
    try:
        return time.mktime(time.strptime(job.submitted, "%Y-%m-%dT%H:%M:%S")) >= int(own.created)
    except ValueError:
        return True


def recorded(run: RunDir) -> set[str]:
    """Return the ids of the jobs that the run's folder names as its own."""
    found = set()
    for path in (run.slurm_submitted, run.slurm_current, run.slurm_next, run.slurm_attempts):
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        found |= {line.split()[0] for line in lines if line.split()}
    return {job.partition("_")[0] for job in found} - {"-"}
