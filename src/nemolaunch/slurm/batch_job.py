"""The batch job of a plan: its options, environment variables, mounts and commands.

Both the script that a dry run shows (`nemolaunch.slurm.batch_script`) and the NeMo-Run executor that submits it
(`nemolaunch.launching.experiment`) are built from it. A test checks that the two texts are equal.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nemolaunch.containers.command import Container, command
from nemolaunch.containers.mounts import mounts_of
from nemolaunch.facts.submission import Submission, split_option
from nemolaunch.job import Launch
from nemolaunch.job.env_presets import passed_names
from nemolaunch.planning import Plan
from nemolaunch.run.lock import STALE_S
from nemolaunch.slurm.site_setup import site_setup
from nemolaunch.system import webhook

TASK = "pretrain"
# Variables that ranks in podman's containers get besides the plan's: Slurm's, NeMo-Run's and secrets, never by value
_INHERITED = (
    "SLURM_*", "MASTER_*", "PET_*", "LOGLEVEL", "PYTHONUNBUFFERED", "HF_TOKEN", "WANDB_*", "MLFLOW_*", "AWS_*"
)  # fmt: skip
FIRST_PORT, NUM_PORTS = 20000, 10000
# Options of srun: how ranks are placed, and of pyxis for images
PLACEMENT = ("--mpi=none", "--distribution=block", "--cpu-bind=none")
IN_IMAGE = ("--no-container-mount-home", "--container-writable")
GUARD = Path(__file__).with_name("guard.sh")
PREFLIGHT = Path(__file__).with_name("preflight.sh")


def title(plan: Plan) -> str:
    """Return NeMo-Run's name for the experiment."""
    return plan.job.launch.experiment


def experiment_id(plan: Plan) -> str:
    """Return NeMo-Run's experiment id: the title and the number of the submission."""
    return f"{title(plan)}_{_submission(plan).number}"


def experiment_dir(plan: Plan) -> Path:
    """Return the folder in which NeMo-Run keeps this submission: script, task, code, Slurm's output."""
    return plan.run.nemo_run / "experiments" / title(plan) / experiment_id(plan)


def task_dir(plan: Plan) -> Path:
    """Return the folder of the submission's only task."""
    return experiment_dir(plan) / TASK


def script_path(plan: Plan) -> Path:
    """Return the path of the batch script."""
    return experiment_dir(plan) / f"{TASK}_sbatch.sh"


def job_name(plan: Plan, folder: str | None = None) -> str:
    """Return the job's name, one per run folder, so that Slurm runs its jobs one at a time (`singleton`).

    Args:
        folder: the run folder from which it was submitted, if that was another than the plan's.
    """
    return f"{title(plan)}-{hashlib.sha256(os.fsencode(folder or plan.folder)).hexdigest()[:8]}"


def image(plan: Plan) -> str | None:
    """Return the container image that srun starts with pyxis, or None."""
    return plan.job.launch.container_image if plan.job.launch.runtime == "pyxis" else None


def engine_words(plan: Plan, workdir: str | None = None) -> list[str]:
    """Return the words that start a rank in a container of apptainer or podman; none with pyxis or no container.

    Args:
        workdir: folder that the rank starts in; that of the job's code by default.
    """
    launch = plan.job.launch
    if launch.runtime not in ("apptainer", "podman"):
        return []
    box = Container(
        engine=launch.runtime,
        image=image_of(launch),
        mounts=tuple(mounts_of(plan)),
        workdir=workdir or str(task_dir(plan) / "code"),
        variables=(*_INHERITED, *_webhook(plan), *container_env(plan)),
        gpus=plan.device == "gpu",
        user=_submission(plan).user,
        init=False,
        raises_limits=False,
        alone=False,
    )
    return command(box)


def _webhook(plan: Plan) -> tuple[str, ...]:
    """Return the name of the variable that holds the webhook of `--notify`, if messages are sent."""
    return (webhook.VARIABLE,) if plan.job.logging.notify else ()


def image_of(launch: Launch) -> str:
    """Return a job's image: a path as an absolute one, a name as it is."""
    is_path = launch.container_image.startswith(("/", "./", "../", "~"))
    return os.path.abspath(os.path.expanduser(launch.container_image)) if is_path else launch.container_image


def options(plan: Plan) -> dict[str, Any]:
    """Return the sbatch options by long name without dashes. True stands for an option without a value.

    Like NVIDIA's own scripts: exclusive nodes with all their memory, one task per GPU. `singleton` makes the jobs
    of a run folder run one at a time.
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
    chosen |= of_site(launch, ("qos", "gres", "constraint", "exclude", "reservation", "comment", "array"))
    if nodes := excluded(plan):
        chosen["exclude"] = nodes
    return with_raw_options(chosen, launch)


def of_site(launch: Launch, names: tuple[str, ...]) -> dict[str, Any]:
    """Return those of these options of sbatch that the job sets."""
    found = {name: getattr(launch, name) for name in names}
    return {name: value for name, value in found.items() if value is not None and value != "none"}


def with_raw_options(chosen: dict[str, Any], launch: Launch) -> dict[str, Any]:
    """Return options of sbatch with those of `--sbatch`, which win."""
    chosen = dict(chosen)
    for name, value in map(split_option, launch.sbatch):
        chosen.pop(name, None)
        if value != "none":
            chosen[name] = True if value is None else value
    return chosen


def excluded(plan: Plan) -> str:
    """Return the nodes that the job must not use: `--exclude`, and with `--exclude-slow` those found unfit."""
    unfit = _submission(plan).unfit if plan.job.guards.exclude_slow else ()
    return ",".join(filter(None, [_given_nodes(plan), *unfit]))


def _given_nodes(plan: Plan) -> str:
    given = plan.job.launch.exclude
    return given if given and given != "none" else ""


def sbatch_line(name: str, value: Any) -> str:
    """Return the line of a batch script that sets an option of sbatch. True stands for an option without a value."""
    return f"#SBATCH --{name}" + ("" if value is True else f"={quoted(str(value))}")


def output(plan: Plan) -> str:
    """Return the path to which Slurm writes the output of the batch script."""
    job = "%A_%a" if "array" in options(plan) else "%j"
    return str(task_dir(plan) / f"sbatch_{job_name(plan)}_{job}.out")


def variables(plan: Plan) -> dict[str, str]:
    """Return the job's environment variables as shell words. Exported values override them, except those of flags.

    Secrets are not included: they reach the job through the environment it is submitted from. NeMo-Run converts
    names to capitals; `setup` exports those that are not.
    """
    words = {name: f"${{{name}:-{quoted(value)}}}" for name, value in plan.environment.items()}
    words |= {name: quoted(value) for name, value in plan.variables.items() if name == name.upper()}
    if plan.job.launch.launcher == "torchrun":
        words["PET_SIGNALS_TO_HANDLE"] = "SIGINT"
    if plan.job.launch.runtime is None:
        folder = os.path.dirname(plan.python) if plan.python else _submission(plan).bin
        words["PATH"] = quoted(folder) + ':"$PATH"'
    return words


def container_env(plan: Plan) -> list[str]:
    """Return the variables that must override those of the container image."""
    return sorted({*variables(plan), *plan.variables, *passed_names(plan.job.launch.env)})


def quoted(word: str) -> str:
    """Return a word for the shell, quoted if necessary."""
    return shlex.quote(word)


def pyxis_words(image: str, mounts: Iterable[str], workdir: str, names: Iterable[str]) -> list[str]:
    """Return the options of srun by which pyxis starts an image; mounts and working directory are shell words.

    Args:
        names: of the variables that override those of the image.
    """
    return [
        *("--container-image", quoted(image), "--container-mounts", ",".join(mounts)),
        *("--container-workdir", workdir, "--container-env", ",".join(names)),
    ]


def srun_args(plan: Plan) -> list[str]:
    """Return additional arguments of srun.

    Ranks of a node are numbered consecutively. Without `--cpu-bind=none`, clusters that bind tasks confine each
    one to a single core. torchrun ignores the signals that ask a job to exit: they reach every process of the
    job, and torchrun would end its ranks within half a minute, whether they have saved or not.
    """
    words = [*PLACEMENT, *(IN_IMAGE if image(plan) else ())]
    if plan.job.launch.launcher == "torchrun":
        words += ["bash", "-c", quoted("trap '' TERM USR1 USR2; exec \"$@\""), "bash"]
    return words + [quoted(word) for word in engine_words(plan)]


def torchrun_port(plan: Plan) -> int:
    """Return the run's rendezvous port, so that two jobs on one node do not collide."""
    return FIRST_PORT + int(hashlib.sha256(plan.folder.encode()).hexdigest()[:8], 16) % NUM_PORTS


def _meeting_port(plan: Plan) -> str:
    """Return the shell command that sets the rendezvous port of ranks started without torchrun.

    Lightning derives the port from the last four digits of the job id only. This one depends on the run, the job
    and the attempt, since processes left over from an earlier attempt may still hold its port.
    """
    sum_ = f"{torchrun_port(plan) - FIRST_PORT} + SLURM_JOB_ID + 31 * ${{SLURM_RESTART_COUNT:-0}}"
    return f"export MASTER_PORT=$(({FIRST_PORT} + ({sum_}) % {NUM_PORTS}))"


def setup(plan: Plan) -> str:
    """Return the commands that run before the ranks: queue the next job, and stop if there is no progress.

    The first line turns off the command tracing that NeMo-Run's script turns on.
    """
    array = "array" in options(plan)
    others = lower_case_exports(plan)
    return "\n".join(
        (
            "{ set +vx; } 2>/dev/null",
            *([] if plan.job.launch.launcher == "torchrun" else [_meeting_port(plan)]),
            *others,
            *into_apptainer(plan),
            f"run_folder={quoted(plan.folder)}",
            f"batch_script={quoted(str(script_path(plan)))}",
            f"max_failures={plan.job.launch.max_failures}",
            f"chain={int(plan.job.launch.chain and not array)}",
            f"array={int(array)}",
            f"lock_stale_s={STALE_S}",
            GUARD.read_text(encoding="utf-8").rstrip("\n"),
            *site_setup(plan.job.launch, _decided(plan)),
            *_preflight(plan),
        )
    )


def _preflight(plan: Plan) -> tuple[str, ...]:
    """Return the lines that leave out nodes which the preflight of an attempt named, or end the chain."""
    if not plan.job.guards.preflight:
        return ()
    return (
        f"exclude_slow={int(plan.job.guards.exclude_slow)}",
        f"excluded_nodes={quoted(_given_nodes(plan))}",
        PREFLIGHT.read_text(encoding="utf-8").rstrip("\n"),
    )


def lower_case_exports(plan: Plan) -> tuple[str, ...]:
    """Return the exports of variables whose names NeMo-Run would change."""
    others = {name: value for name, value in plan.variables.items() if name != name.upper()}
    return tuple(f"export {name}={quoted(value)}" for name, value in others.items())


def into_apptainer(plan: Plan) -> tuple[str, ...]:
    """Return the exports by which the plan's variables win over those of an apptainer image."""
    if plan.job.launch.runtime != "apptainer":
        return ()
    return tuple(f'export APPTAINERENV_{name}="${name}"' for name in container_env(plan))


def _decided(plan: Plan) -> tuple[str, ...]:
    """Return the exports that hold whatever the site's commands export: those of flags, and the interpreter."""
    names = [name for name in variables(plan) if name not in plan.environment]
    return (
        *(f"export {name}={variables(plan)[name]}" for name in names),
        *lower_case_exports(plan),
        *into_apptainer(plan),
    )


def _submission(plan: Plan) -> Submission:
    assert plan.submission is not None, "the plan is not for Slurm"
    return plan.submission
