"""Plan → NeMo-Run experiment. Runs in a process of its own, whose output is the launcher's log.

    python -m nemolaunch.launch.nemo_run_job PLAN.json [USER HOST HOME BEFORE]

A local job: ends when it has ended, with exit code 0 only if every rank succeeded; NeMo-Run itself reports
success either way. A job for Slurm: ends when it is submitted, from another machine where the
further words are given (`OverSsh`); the last line is `submitted JOB_ID`.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

from nemolaunch.planning import Plan
from nemolaunch.slurm import batch_job
from nemolaunch.system import processes

SUBMITTED = "submitted "


def local_executor(plan: Plan) -> Any:
    """torchrun on this machine, one process per GPU (or CPU process of a rehearsal)."""
    import nemo_run as run
    from nemo_run.run.torchx_backend.components import torchrun

    # NeMo-Run quotes torchrun's words as for a shell, but starts it without one: in a folder whose name has a
    # space, ranks would look for a file with quotes in its name
    torchrun.shlex = SimpleNamespace(quote=str)
    variables = {name: os.environ.get(name, value) for name, value in plan.environment.items()}
    variables |= plan.variables
    if plan.values["num_nodes"] == 1:
        # torchrun's --local-addr: otherwise ranks look for each other under the machine's name, and wait
        # forever where nothing resolves it, as on many machines without a network
        variables["PET_LOCAL_ADDR"] = os.environ.get("PET_LOCAL_ADDR", "127.0.0.1")
    return run.LocalExecutor(ntasks_per_node=plan.values["num_gpus"], launcher="torchrun", env_vars=variables)


def slurm_executor(plan: Plan, tunnel: Any = None) -> Any:
    """The SlurmExecutor whose script is `sbatch.script(plan)`; through a tunnel, if not on this machine.

    Words are quoted here where they need it, because NeMo-Run writes mounts, images and variables into the
    script as they are.
    """
    import nemo_run as run
    from nemo_run.core.execution.slurm import SlurmJobDetails

    from nemolaunch.launch.packager import CodePackager

    options = {name.replace("-", "_"): value for name, value in batch_job.options(plan).items()}
    torchrun = plan.values["launcher"] == "torchrun"
    if torchrun:
        options["ntasks_per_node"] = plan.values["num_gpus"]  # NeMo-Run itself makes it 1 again
    known = {f.name for f in fields(run.SlurmExecutor) if f.init} - {"dependencies"}
    options.pop("job_name")  # comes from job_details
    port = batch_job.torchrun_port(plan)
    image = batch_job.image(plan)
    return run.SlurmExecutor(
        **{"time": None, "account": None, **{name: v for name, v in options.items() if name in known}},
        additional_parameters={name: v for name, v in options.items() if name not in known},
        job_name_prefix="-",  # unused, but NeMo-Run derives one from the account where there is none
        job_details=SlurmJobDetails(job_name=batch_job.job_name(plan)),
        container_image=batch_job.quoted(image) if image else None,
        container_mounts=[batch_job.quoted(mount) for mount in batch_job.mounts(plan)] if image else [],
        container_env=batch_job.container_env(plan) if image else None,
        env_vars=batch_job.variables(plan),
        setup_lines=batch_job.setup(plan) or None,
        srun_args=batch_job.srun_args(plan),
        launcher=run.Torchrun(rdzv_port=port, rdzv_id=port) if torchrun else None,
        packager=CodePackager(),
        tunnel=tunnel or run.LocalTunnel(job_dir=str(plan.run.nemo_run / "experiments")),
        poll_estimated_start_time=False,
    )


@dataclass(frozen=True)
class OverSsh:
    """How a job is submitted from another machine.

    Attributes:
        user, host: the login node.
        home: a folder here for NeMo-Run, which copies what it writes there to the run's own.
        before: a shell command to run there before each of NeMo-Run's; empty for none.
    """

    user: str
    host: str
    home: str
    before: str = ""


def experiment(plan: Plan, ssh: OverSsh | None = None) -> Any:
    """The NeMo-Run experiment of a plan, to be entered with `with`."""
    home = ssh.home if ssh else str(plan.run.nemo_run)
    os.environ["NEMORUN_HOME"] = home  # read when nemo_run is imported
    import nemo_run as run

    if plan.submission is None:
        return run.Experiment(plan.values["experiment"], executor=local_executor(plan))
    tunnel = None
    if ssh:
        folder = str(plan.run.nemo_run / "experiments")
        tunnel = run.SSHTunnel(host=ssh.host, user=ssh.user, job_dir=folder, pre_command=ssh.before or None)
    return run.Experiment(
        batch_job.title(plan),
        executor=slurm_executor(plan, tunnel),
        id=batch_job.experiment_id(plan),
        base_dir=home,
        skip_status_at_exit=True,
        enable_goodbye_message=False,
    )


def add_task(running: Any, plan: Plan) -> None:
    """The one task of the experiment: `nemolaunch.nemo2.entry.pretrain` on every rank."""
    import nemo_run as run

    from nemolaunch.nemo2 import profile
    from nemolaunch.nemo2.entry import pretrain

    task = run.Partial(pretrain, plan_file=str(plan.run.plan))
    running.add(task, name=batch_job.TASK, plugins=profile.plugins(plan))


def run_experiment(plan: Plan) -> bool:
    """Run the plan on this machine and wait. Returns whether it succeeded."""
    with experiment(plan) as running:
        add_task(running, plan)
        running.run(tail_logs=False, detach=False)
    # only leaving the block waits for the job
    states = [str(getattr(job.state, "name", job.state)) for job in running.jobs]
    print("the job ended as", ", ".join(states), flush=True)
    return bool(states) and all(state == "SUCCEEDED" for state in states)


def submit(plan: Plan, ssh: OverSsh | None = None) -> str:
    """Submit the plan to Slurm. Returns the job's id."""
    with experiment(plan, ssh) as running:
        add_task(running, plan)
        running.run(tail_logs=False, detach=True)
    handle = str(running.jobs[0].handle)  # scheme://session/JOB_ID/role/replica
    return handle.partition("://")[2].split("/")[1].split(";")[0]


def _end_with_parent(plan: Plan) -> None:
    """On SIGTERM, and when the command that started this is killed, end the job before this process ends.

    torchrun hands the signal on to its ranks. NeMo-Run's own clean-up would wait for the job instead.
    """
    folder = plan.run.root

    def stop(number: int, frame: FrameType | None) -> None:
        processes.terminate(processes.children(folder))
        processes.wait_until(lambda: not processes.members(folder), processes.GRACE_S)
        processes.kill(folder)
        os._exit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    processes.signal_on_parents_death(signal.SIGTERM)


def main() -> int:
    """Exit code 0 when the local job succeeded, or Slurm took the job."""
    plan = Plan.load(Path(sys.argv[1]))
    # torchrun and the interpreter of this environment, whatever the user's PATH
    os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", "")
    if plan.submission is not None:
        ssh = OverSsh(*sys.argv[2:]) if sys.argv[2:] else None
        print(SUBMITTED + submit(plan, ssh), flush=True)
        return 0
    _end_with_parent(plan)
    return 0 if run_experiment(plan) else 1


if __name__ == "__main__":
    sys.exit(main())
