"""The batch script of a preflight without a training: the options, variables and container of a training job."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from nemolaunch.containers.mounts import mounts_of
from nemolaunch.planning import Plan
from nemolaunch.slurm import batch_job
from nemolaunch.slurm.site_setup import site_setup

TIME = "20"  # minutes
# What `site_setup` expects of the batch script of a training
ON_EXIT = """\
on_exit() {
    local code=$?
    if [ -n "$site_step" ]; then echo "nemolaunch: the set-up of the job failed with code $code: $site_step"; fi
    exit "$code"
}"""
NOT_TAKEN = ("array", "dependency", "open-mode")


def job_name(plan: Plan) -> str:
    """Return a name that no job of a run has, so that neither waits for the other."""
    return f"preflight-{batch_job.job_name(plan)}"


def script(plan: Plan, command: Sequence[str]) -> str:
    """Return the text of the batch script.

    Args:
        command: arguments of the Python interpreter in each rank.
    """
    launch, folder = plan.job.launch, plan.run.preflight
    options = {**batch_job.options(plan), "job-name": job_name(plan), "ntasks-per-node": plan.num_gpus}
    options = {name: value for name, value in options.items() if name not in NOT_TAKEN}
    options["time"] = TIME if "time" in plan.computed or launch.time is None else launch.time
    options["output"] = str(folder / "job-%j.out")
    lines = [batch_job.sbatch_line(*option) for option in sorted(options.items()) if option[1] is not None]
    site = site_setup(launch, ())
    exports = [f"export {name}={word}" for name, word in batch_job.variables(plan).items()]
    exports += [*batch_job.lower_case_exports(plan), *batch_job.into_apptainer(plan)]
    words = ["srun", *_place(plan), "--kill-on-bad-exit=0", *batch_job.PLACEMENT]
    words += map(batch_job.quoted, batch_job.engine_words(plan, str(folder / "code")))
    words += [
        batch_job.quoted(plan.python or "python"),
        *map(shlex.quote, command),
        "--attempt",
        '"$SLURM_JOB_ID.0"',
    ]
    text = ["#!/bin/bash", *lines, *([ON_EXIT] if site else []), *site, *exports, " ".join(words)]
    return "\n".join(text) + "\n"


def _place(plan: Plan) -> list[str]:
    """Return the options of srun that start the ranks in the container, or in the folder with this package."""
    code, image = str(plan.run.preflight / "code"), batch_job.image(plan)
    if image is None:
        return ["--chdir", batch_job.quoted(code)]
    mounts = map(batch_job.quoted, mounts_of(plan))
    names = batch_job.container_env(plan)
    return [*batch_job.pyxis_words(image, mounts, batch_job.quoted(code), names), *batch_job.IN_IMAGE]
