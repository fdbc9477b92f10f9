"""What a plan asks of Slurm: the options of the batch job, its variables, mounts and commands.

Both sides are made from this one description: the script that a dry run shows (`nemolaunch.slurm.batch_script`) and the
NeMo-Run executor that submits it (`nemolaunch.launching.experiment`). A test holds the two texts equal.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from pathlib import Path
from typing import Any

from nemolaunch.facts.submission import Submission, split_option
from nemolaunch.planning import Plan
from nemolaunch.run.lock import STALE_S

TASK = "pretrain"
NO_CONTAINER = "none"
FIRST_PORT, NUM_PORTS = 20000, 10000
GUARD = Path(__file__).with_name("guard.sh")


def title(plan: Plan) -> str:
    """NeMo-Run's name for the experiment."""
    return plan.job.launch.experiment


def experiment_id(plan: Plan) -> str:
    """NeMo-Run's id: the title and the number of the submission."""
    return f"{title(plan)}_{_submission(plan).number}"


def experiment_dir(plan: Plan) -> Path:
    """Where NeMo-Run keeps this submission: script, task, code, Slurm's output."""
    return plan.run.nemo_run / "experiments" / title(plan) / experiment_id(plan)


def task_dir(plan: Plan) -> Path:
    return experiment_dir(plan) / TASK


def script_path(plan: Plan) -> Path:
    return experiment_dir(plan) / f"{TASK}_sbatch.sh"


def job_name(plan: Plan) -> str:
    """One name per run folder, so that jobs of one folder can be told to run one at a time."""
    return f"{title(plan)}-{hashlib.sha256(plan.folder.encode()).hexdigest()[:8]}"


def image(plan: Plan) -> str | None:
    """The container, or None to run in this environment."""
    given = plan.job.launch.container_image
    return None if given == NO_CONTAINER else given


def options(plan: Plan) -> dict[str, Any]:
    """Options of sbatch, by long name without dashes. True stands for an option without a value.

    As NVIDIA's own scripts do: whole nodes with all their memory, one task per GPU. `singleton` makes jobs of
    one run folder take turns.
    """
    launch = plan.job.launch
    chosen: dict[str, Any] = {
        "account": launch.account,
        "partition": launch.partition,
        "time": launch.time,
        "nodes": launch.num_nodes,
        "ntasks-per-node": plan.num_gpus if launch.launcher == "srun" else 1,
        "exclusive": True,
        "mem": "0",
        "dependency": ",".join(filter(None, [launch.dependency, "singleton"])),
        "open-mode": "append",
        "job-name": job_name(plan),
    }
    if plan.device == "gpu" and launch.gres is None:
        chosen["gpus-per-node"] = plan.num_gpus
    for name in ("qos", "gres", "constraint", "exclude", "reservation", "comment", "array"):
        value = getattr(launch, name)
        if value is not None and value != "none":
            chosen[name] = value
    for name, value in map(split_option, launch.sbatch):
        chosen.pop(name, None)
        if value != "none":
            chosen[name] = True if value is None else value
    return chosen


def output(plan: Plan) -> str:
    """Slurm's own output of the batch script."""
    job = "%A_%a" if "array" in options(plan) else "%j"
    return str(task_dir(plan) / f"sbatch_{job_name(plan)}_{job}.out")


def variables(plan: Plan) -> dict[str, str]:
    """Variables of the job as shell words. A value the user has exported wins, but not over a flag.

    Secrets are not among them: they reach the job through the environment it is submitted from. NeMo-Run writes
    names in capitals; `setup` exports those that are not.
    """
    words = {name: f"${{{name}:-{quoted(value)}}}" for name, value in plan.environment.items()}
    words |= {name: quoted(value) for name, value in plan.variables.items() if name == name.upper()}
    if plan.job.launch.launcher == "torchrun":
        words["PET_SIGNALS_TO_HANDLE"] = "SIGINT"
    if image(plan) is None:
        words["PATH"] = quoted(_submission(plan).bin) + ':"$PATH"'
    return words


def mounts(plan: Plan) -> list[str]:
    """SRC:DST of every folder the job reads or writes, each under its own path, then the user's own."""
    job = plan.job
    folders = [os.path.dirname(prefix) for _, prefix in plan.blend]
    folders += _submission(plan).links
    folders += _submission(plan).stream_folders
    folders.append(plan.folder)
    resume = None if job.checkpoint.resume in ("auto", "never") else job.checkpoint.resume
    named = (job.data.index_mapping_dir, job.model.nemo_model, resume)
    folders += [os.path.abspath(os.path.expanduser(path)) for path in named if path]
    kept = [f for f in dict.fromkeys(folders) if not any(_inside(f, other) for other in folders)]
    return [f"{folder}:{folder}" for folder in kept] + list(job.launch.container_mounts)


def _inside(path: str, folder: str) -> bool:
    return path != folder and os.path.commonpath([path, folder]) == folder


def container_env(plan: Plan) -> list[str]:
    """Variables that are to win over the image's own, which otherwise come first in a container."""
    return sorted({*variables(plan), *plan.variables})


def quoted(word: str) -> str:
    """A word for the shell, with quotes where it needs them."""
    return shlex.quote(word)


def srun_args(plan: Plan) -> list[str]:
    """Further words for srun.

    Ranks of a node stand next to each other. Without `--cpu-bind=none` each task is held to one core where
    the cluster binds tasks. torchrun is started with the signals ignored that ask a job to leave: they reach
    every process of the job, and it would end its ranks after half a minute, or at once, saved or not.
    """
    words = ["--mpi=none", "--distribution=block", "--cpu-bind=none"]
    if image(plan):
        words += ["--no-container-mount-home", "--container-writable"]
    if plan.job.launch.launcher == "torchrun":
        words += ["bash", "-c", quoted("trap '' TERM USR1 USR2; exec \"$@\""), "bash"]
    return words


def torchrun_port(plan: Plan) -> int:
    """A rendezvous port of the run's own, so that two jobs on one node do not meet at the same one."""
    return FIRST_PORT + int(hashlib.sha256(plan.folder.encode()).hexdigest()[:8], 16) % NUM_PORTS


def _meeting_port(plan: Plan) -> str:
    """The shell command that names the port where the ranks meet, without torchrun.

    Lightning's own choice has only the last four digits of the job's id in it. This one is of the run, the job
    and the start: what is left of an earlier start may still hold its port.
    """
    sum_ = f"{torchrun_port(plan) - FIRST_PORT} + SLURM_JOB_ID + 31 * ${{SLURM_RESTART_COUNT:-0}}"
    return f"export MASTER_PORT=$(({FIRST_PORT} + ({sum_}) % {NUM_PORTS}))"


def setup(plan: Plan) -> str:
    """What the script does before it starts the ranks: queue the next job, and notice when there is no point.

    The first line ends the tracing of every command that NeMo-Run's script begins with.
    """
    array = "array" in options(plan)
    others = {name: value for name, value in plan.variables.items() if name != name.upper()}
    return "\n".join(
        (
            "{ set +vx; } 2>/dev/null",
            *([] if plan.job.launch.launcher == "torchrun" else [_meeting_port(plan)]),
            *(f"export {name}={quoted(value)}" for name, value in others.items()),
            f"run_folder={quoted(plan.folder)}",
            f"batch_script={quoted(str(script_path(plan)))}",
            f"most_starts={plan.job.launch.max_failures}",
            f"chain={int(plan.job.launch.chain and not array)}",
            f"array={int(array)}",
            f"lock_stale_s={STALE_S}",
            GUARD.read_text(encoding="utf-8").rstrip("\n"),
        )
    )


def _submission(plan: Plan) -> Submission:
    assert plan.submission is not None, "the plan is not for Slurm"
    return plan.submission
