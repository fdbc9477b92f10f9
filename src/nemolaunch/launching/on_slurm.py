"""Submit a job to Slurm: prepare the run folder, have NeMo-Run write the job, run sbatch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from nemolaunch.errors import NemolaunchError
from nemolaunch.launching.prepare import prepare
from nemolaunch.launching.secrets import Secrets
from nemolaunch.planning import Plan
from nemolaunch.slurm import batch_job, submission

REQUEUE = "--requeue"


def submit(plan: Plan, secrets: Secrets, tell: Callable[[str], None]) -> str:
    """Prepare the run folder and submit the plan from this machine. Return the job's id.

    Secrets are passed in the environment, which Slurm hands on to the job, and never in a file.

    Raises:
        NemolaunchError: the run is already queued, its folder cannot be prepared, or Slurm rejects the job.
    """
    with submission.claimed(plan, tell):
        prepare(plan, secrets)
        submission.start_over(plan)
        log = write_experiment(plan.run.plan)
        shell = submission.shell_here({**os.environ, **secrets.environment()})
        try:
            job = submission.sbatch([REQUEUE, str(batch_job.script_path(plan))], shell)
        except NemolaunchError as error:
            submission.note_submission(plan, "", f"{log}{error}\n")
            raise
        submission.note_submission(plan, job, log)
    return job


def write_experiment(plan_file: Path, home: Path | None = None) -> str:
    """Have NeMo-Run write the files of a submission, in a separate process. Return its output.

    Args:
        home: where to write them; by default the run's folder for NeMo-Run.

    Raises:
        NemolaunchError: NeMo-Run failed.
    """
    words = [str(home)] if home else []
    done = subprocess.run(
        [sys.executable, "-m", "nemolaunch.launching.experiment", str(plan_file), *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    if done.returncode:
        last = (said.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise NemolaunchError(f"NeMo-Run could not write the job: {last}")
    return said
