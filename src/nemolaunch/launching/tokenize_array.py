"""Tokenising as a Slurm job array: tasks that do the units of a run, then a job that joins their results."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.containers.command import Container
from nemolaunch.containers.command import command as command_of
from nemolaunch.containers.mounts import under_own_paths
from nemolaunch.data.unfinished import JOBS
from nemolaunch.errors import UsageError
from nemolaunch.job import Launch
from nemolaunch.slurm import batch_job
from nemolaunch.slurm.batch_job import image_of, of_site, with_raw_options
from nemolaunch.slurm.site_setup import plain_setup
from nemolaunch.slurm.submission import sbatch, shell_here
from nemolaunch.system.atomic_files import atomic_folder, write_json, write_text
from nemolaunch.system.source_archive import copy_to

TASK = "nemolaunch.cli.commands.tokenize_task"
# Of the profile or `--sbatch`, besides account, partition and time
CODE = "code"
# Variables that hold in a container, whatever its image says
OURS = ("PYTHONPATH", "XDG_CACHE_HOME")
OF_SITE = ("qos", "gres", "constraint", "exclude", "reservation")


@dataclass(frozen=True, kw_only=True)
class Array:
    """A job array to submit.

    Attributes:
        name: of the run, for the jobs.
        work_folder: of the run, in which its tasks are.
        num_tasks: that are left; none if only the results have to be joined.
        workers: processes of each task; 0 for one on each core.
        words: arguments of `nemolaunch tokenize` that make the same output on one machine.
        folder: for the scripts and logs of the jobs; visible to all nodes.
        cwd: the folder that relative paths in `words` start from.
        launch: options of the jobs; `num_nodes` tasks run at a time.
        folders: that the jobs read or write, absolute, for a container.
        cache: folder with what is known of tokenizers.
    """

    name: str
    work_folder: Path
    num_tasks: int
    workers: int
    words: list[str]
    folder: Path
    cwd: Path
    launch: Launch
    folders: tuple[str, ...]
    cache: Path


def array_script(array: Array) -> str:
    """Return the batch script of the array: a whole node for each task, requeued after a node fails."""
    command = (
        f"-m {TASK} {shlex.quote(str(array.work_folder.absolute()))} $SLURM_ARRAY_TASK_ID {array.workers}"
    )
    tasks = f"0-{array.num_tasks - 1}%{array.launch.num_nodes}"
    more = {"array": tasks, "exclusive": True, "mem": "0"}
    return _script(array, "tokenize", "%A_%a", more, command)


def join_script(array: Array) -> str:
    """Return the batch script of the job that joins the results, which is the run on one machine that goes on."""
    words = ["-m", "nemolaunch.cli.main", "tokenize", *array.words, "--executor", "local"]
    return _script(array, "join", "%j", {}, shlex.join(words))


def _script(array: Array, what: str, job: str, more: dict[str, Any], arguments: str) -> str:
    """Return a batch script that runs Python with these arguments, in the container if there is one."""
    launch = array.launch
    options: dict[str, Any] = {
        "job-name": f"{what}-{array.name}",
        "account": launch.account,
        "partition": launch.partition,
        "nodes": 1,
        "ntasks": 1,
        **({"time": launch.time} if launch.time else {}),
        "chdir": array.cwd,
        "output": array.folder / f"{what}-{job}.log",
        "open-mode": "append",
        "requeue": True,
        **more,
        **of_site(launch, OF_SITE),
    }
    lines = [
        f"#SBATCH {_quoted(f'--{name}' if value is True else f'--{name}={value}')}"
        for name, value in with_raw_options(options, launch).items()
    ]
    code = shlex.quote(str(array.folder / CODE))
    exports = [f'export PYTHONPATH={code}"${{PYTHONPATH:+:$PYTHONPATH}}"']
    python = [shlex.quote(sys.executable)]
    if launch.runtime is not None:
        exports = [
            f"export PYTHONPATH={code}",
            f"export XDG_CACHE_HOME={shlex.quote(str(array.cache.parent))}",
        ]
        if launch.runtime == "apptainer":
            exports += [f'export APPTAINERENV_{name}="${name}"' for name in OURS]
        python = [*_container_words(array), "python"]
    command = " ".join(["exec", *python, arguments])
    return "\n".join(["#!/bin/bash", *lines, "set -e", *plain_setup(launch), *exports, command]) + "\n"


def _container_words(array: Array) -> list[str]:
    """Return the shell words that run a command in the job's container, by the paths it has outside."""
    launch = array.launch
    folders = (*array.folders, str(array.folder), str(array.cwd), str(array.cache))
    mounts = [*under_own_paths(folders), *launch.container_mounts]
    if launch.runtime == "pyxis":
        words = batch_job.pyxis_words(
            image_of(launch), map(shlex.quote, mounts), shlex.quote(str(array.cwd)), OURS
        )
        return ["srun", *words, *batch_job.PLACEMENT, *batch_job.IN_IMAGE]
    box = Container(
        engine=str(launch.runtime),
        image=image_of(launch),
        mounts=tuple(mounts),
        workdir=str(array.cwd),
        variables=("SLURM_*", *OURS),
        gpus=False,
        user=f"{os.getuid()}:{os.getgid()}",
        init=False,
        raises_limits=False,
        alone=False,
    )
    return [shlex.quote(word) for word in command_of(box)]


def _quoted(option: str) -> str:
    """Quote an option for `#SBATCH`. Raises UsageError for characters that cannot be quoted."""
    if any(character in option for character in '"\\\n'):
        raise UsageError(f"sbatch options cannot contain quotes, backslashes or line breaks: {option!r}")
    name, _, value = option.partition("=")
    return f'{name}="{value}"' if any(c in value for c in " '#;$`()") else option


def submit(array: Array) -> tuple[str | None, str]:
    """Write and submit the scripts: the array, then the job that joins, which runs if the array succeeds.

    The jobs run the code that they are submitted with, wherever that came from and whatever is installed later.

    Return both job ids; the first is None if no task is left.
    """
    with atomic_folder(array.folder / CODE) as code:
        copy_to(code)
    shell, after, first = shell_here(os.environ), [], None
    if array.num_tasks:
        script = array.folder / "tokenize.sh"
        write_text(script, array_script(array))
        first = sbatch([str(script)], shell)
        after = [f"--dependency=afterok:{first}", "--kill-on-invalid-dep=yes"]
    script = array.folder / "join.sh"
    write_text(script, join_script(array))
    second = sbatch([*after, str(script)], shell)
    write_json(array.work_folder / JOBS, {"array": first, "join": second})
    return first, second
