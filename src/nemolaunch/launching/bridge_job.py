"""The files of a Slurm job with Megatron-Bridge, written where NeMo-Run writes those of a job with NeMo 2.

NeMo-Run takes no part: the environment of Megatron-Bridge may not have it, and its task would be NeMo's.
"""

from __future__ import annotations

from pathlib import Path

from nemolaunch.planning import Plan
from nemolaunch.slurm import batch_job, batch_script
from nemolaunch.system import source_archive
from nemolaunch.system.atomic_files import write_text


def write(plan: Plan, home: Path) -> None:
    """Write the batch script, and the code that every rank starts in.

    Args:
        home: the run's folder for NeMo-Run, or a folder whose contents will be copied to it.
    """
    task = home / batch_job.task_dir(plan).relative_to(plan.run.nemo_run)
    task.mkdir(parents=True)
    source_archive.copy_to(task / "code")
    write_text(home / batch_job.script_path(plan).relative_to(plan.run.nemo_run), batch_script.script(plan))
