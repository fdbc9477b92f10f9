"""Plan → NeMo-Run experiment. Runs in a separate process, whose output is the launcher's log.

    python -m nemolaunch.launching.experiment PLAN.json [HOME]

A local job is run to its end; the exit code is 0 only if every rank succeeded (NeMo-Run itself reports success either
way). For a Slurm job, the files to submit (batch script, task, code) are written below HOME, by default the run's
folder for NeMo-Run; nothing is submitted.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import fields
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

from nemolaunch.containers.mounts import mounts_of
from nemolaunch.launching import bridge_job
from nemolaunch.planning import Plan
from nemolaunch.slurm import batch_job
from nemolaunch.system import folder_identity, processes
from nemolaunch.system.secret_values import mask_streams


def local_executor(plan: Plan) -> Any:
    """Return an executor for torchrun on this machine, with one process per GPU (or per CPU rank of a rehearsal)."""
    import nemo_run as run
    from nemo_run.run.torchx_backend.components import torchrun

    # NeMo-Run quotes torchrun's arguments for a shell, but starts it without one: in a folder with a space in its
    # name, ranks would look for a file with quotes in its name
    torchrun.shlex = SimpleNamespace(quote=str)
    return run.LocalExecutor(
        ntasks_per_node=plan.num_gpus, launcher="torchrun", env_vars=local_variables(plan)
    )


def local_variables(plan: Plan) -> dict[str, str]:
    """Return the variables of torchrun and the ranks on this machine."""
    variables = {name: os.environ.get(name, value) for name, value in plan.environment.items()}
    variables |= plan.variables
    if plan.job.launch.num_nodes == 1:
        # torchrun's --local-addr: otherwise ranks connect to the machine's host name, and hang if it does not
        # resolve, as on many machines without a network
        variables["PET_LOCAL_ADDR"] = os.environ.get("PET_LOCAL_ADDR", "127.0.0.1")
    return variables


def slurm_executor(plan: Plan) -> Any:
    """Return the SlurmExecutor whose script is `batch_script.script(plan)`.

    Words are quoted here if necessary, because NeMo-Run writes mounts, images and variables into the script
    unquoted.
    """
    import nemo_run as run
    from nemo_run.core.execution.slurm import SlurmJobDetails

    from nemolaunch.launching.packager import CodePackager

    options = {name.replace("-", "_"): value for name, value in batch_job.options(plan).items()}
    torchrun = plan.job.launch.launcher == "torchrun"
    if torchrun:
        options["ntasks_per_node"] = plan.num_gpus  # NeMo-Run resets it to 1
    known = {f.name for f in fields(run.SlurmExecutor) if f.init} - {"dependencies"}
    options.pop("job_name")  # comes from job_details
    port = batch_job.torchrun_port(plan)
    image = batch_job.image(plan)
    return run.SlurmExecutor(
        **{"time": None, "account": None, **{name: v for name, v in options.items() if name in known}},
        additional_parameters={name: v for name, v in options.items() if name not in known},
        job_name_prefix="-",  # unused, but without one NeMo-Run derives it from the account
        job_details=SlurmJobDetails(job_name=batch_job.job_name(plan)),
        container_image=batch_job.quoted(image) if image else None,
        container_mounts=[batch_job.quoted(mount) for mount in mounts_of(plan)] if image else [],
        container_env=batch_job.container_env(plan) if image else None,
        env_vars=batch_job.variables(plan),
        setup_lines=batch_job.setup(plan) or None,
        srun_args=batch_job.srun_args(plan),
        launcher=run.Torchrun(rdzv_port=port, rdzv_id=port) if torchrun else None,
        packager=CodePackager(),
        tunnel=run.LocalTunnel(job_dir=str(plan.run.nemo_run / "experiments")),
        poll_estimated_start_time=False,
    )


def experiment(plan: Plan, home: str | None = None) -> Any:
    """Return the NeMo-Run experiment of a plan, a context manager.

    Args:
        home: where NeMo-Run writes its files; the paths in them always refer to the run folder.
    """
    home = home or str(plan.run.nemo_run)
    os.environ["NEMORUN_HOME"] = home  # read when nemo_run is imported
    import nemo_run as run

    if plan.submission is None:
        return run.Experiment(plan.job.launch.experiment, executor=local_executor(plan))
    return run.Experiment(
        batch_job.title(plan),
        executor=slurm_executor(plan),
        id=batch_job.experiment_id(plan),
        base_dir=home,
        skip_status_at_exit=True,
        enable_goodbye_message=False,
    )


def add_task(running: Any, plan: Plan) -> None:
    """Add the only task of the experiment: `nemolaunch.nemo2.entry.pretrain` on every rank."""
    import nemo_run as run

    from nemolaunch.nemo2 import profile
    from nemolaunch.nemo2.entry import pretrain

    task = run.Partial(pretrain, plan_file=str(plan.run.plan))
    running.add(task, name=batch_job.TASK, plugins=profile.plugins(plan))


def run_experiment(plan: Plan) -> bool:
    """Run the plan on this machine and wait for it. Return whether it succeeded."""
    with experiment(plan) as running:
        add_task(running, plan)
        running.run(tail_logs=False, detach=False)
    # only leaving the block waits for the job
    states = [str(getattr(job.state, "name", job.state)) for job in running.jobs]
    print("final state of the job:", ", ".join(states), flush=True)
    return bool(states) and all(state == "SUCCEEDED" for state in states)


def write(plan: Plan, home: str | None = None) -> None:
    """Write the files to submit to Slurm: the batch script, the task and the code."""
    if plan.with_bridge:
        bridge_job.write(plan, Path(home or plan.run.nemo_run))
        return
    with experiment(plan, home) as running:
        add_task(running, plan)
        running.dryrun(log=False, delete_exp_dir=False)


def end_with_parent(plan: Plan) -> None:
    """End the job before this process ends, on SIGTERM and when the parent command is killed.

    torchrun forwards the signal to its ranks. NeMo-Run's own cleanup would wait for the job instead.
    """
    own = folder_identity.current(plan.run.root)
    run_id = own.id if own else ""

    def stop(number: int, frame: FrameType | None) -> None:
        processes.terminate(processes.children(run_id))
        processes.wait_until(lambda: not processes.members_of(run_id), processes.GRACE_S)
        processes.kill(plan.run.root, run_id)
        os._exit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    processes.signal_on_parents_death(signal.SIGTERM)


def main() -> int:
    """Return 0 if the local job succeeded, or the files for Slurm were written."""
    plan = Plan.load(Path(sys.argv[1]))
    # torchrun and the interpreter of this environment, whatever the user's PATH
    os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", "")
    if plan.is_private:
        os.umask(0o077)  # NeMo-Run writes the variables of --env into several files
    if plan.submission is not None:
        write(plan, *sys.argv[2:])
        return 0
    mask_streams()
    end_with_parent(plan)
    return 0 if run_experiment(plan) else 1


if __name__ == "__main__":
    sys.exit(main())
