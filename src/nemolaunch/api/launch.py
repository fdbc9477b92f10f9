"""Starting a planned job."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from nemolaunch.api.run import Run
from nemolaunch.launching import on_slurm
from nemolaunch.launching.container import ContainerJob
from nemolaunch.launching.local import LocalJob
from nemolaunch.launching.prepare import finished_step
from nemolaunch.launching.secrets import Secrets
from nemolaunch.planning import Plan
from nemolaunch.slurm import batch_job

log = logging.getLogger("nemolaunch")


def launch(
    plan: Plan,
    *,
    hf_token: str | None = None,
    gpus: Sequence[str] | None = None,
    tell: Callable[[str], None] = log.info,
) -> Run:
    """Start a planned job, here or on Slurm, and return at once.

    A run that has already finished its steps is not started again. A job on this machine ends with this process;
    a job in a container or on Slurm does not.

    Args:
        hf_token: Hugging Face token for a gated tokenizer, kept in memory; `HF_TOKEN` is read by default.
        gpus: the GPUs that a run on this machine may use, as in `CUDA_VISIBLE_DEVICES`; by default all visible ones.
        tell: called with messages while the run is followed; they are logged at level INFO by default.

    Raises:
        PlanError: the plan has errors.
        NemolaunchError: the run folder is in use or cannot be prepared, or Slurm refuses the job.
    """
    plan.raise_for_errors()
    secrets = Secrets(hf_token)
    if finished_step(plan) is not None:
        return Run(plan.folder, tell=tell)
    if plan.submission is not None:
        number = on_slurm.submit(plan, secrets, tell)
        tell(f"submitted job {number}: {batch_job.script_path(plan)}")
        return Run(plan.folder, tell=tell)
    job = LocalJob(plan, secrets, gpus) if plan.container is None else ContainerJob(plan, secrets)
    return Run(plan.folder, tell=tell, job=job)
