"""Run a preflight without a training: as processes on this machine, or as a Slurm job."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from nemolaunch.errors import NemolaunchError
from nemolaunch.planning import Plan
from nemolaunch.preflight import result
from nemolaunch.preflight.command import command
from nemolaunch.preflight.result import Result
from nemolaunch.run.attempts import tail
from nemolaunch.slurm import preflight_script, queue, submission
from nemolaunch.system import source_archive
from nemolaunch.system.atomic_files import atomic_folder, write_text

POLL_S = 1.0
LAST_LINES = 5
Tell = Callable[[str], None]


def run_preflight(plan: Plan, tell: Tell) -> Result:
    """Measure the nodes of the plan. Return the result, which is also in the run folder.

    Raises:
        NemolaunchError: the folder cannot be written, or the nodes could not be measured.
    """
    run = plan.run
    try:
        run.preflight.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NemolaunchError(f"cannot write to {error.filename or run.root}: {error.strerror}") from None
    attempt, log = _on_slurm(plan, tell) if plan.submission is not None else _here(plan)
    found = result.load(run)
    if found is None or found.attempt != attempt:
        last = [line for line in tail(log).splitlines() if line.strip()][-LAST_LINES:]
        raise NemolaunchError("\n  ".join([f"the nodes could not be measured, see {log}:", *last]))
    return found


def _here(plan: Plan) -> tuple[str, Path]:
    """Run one process for each rank on this machine. Return the attempt and the log of rank 0."""
    attempt, logs = f"here-{os.getpid()}", [plan.run.preflight / f"rank{r}.log" for r in range(plan.num_gpus)]
    processes = []
    try:
        for rank, log in enumerate(logs):
            environment = {**plan.environment, **os.environ, **plan.variables}
            environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(plan.num_gpus)}
            environment.setdefault("GLOO_SOCKET_IFNAME", "lo")  # a machine's own name may not resolve
            environment["PYTHONPATH"] = os.pathsep.join(
                filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")])
            )
            with open(log, "wb") as file:
                words = [sys.executable, *command(plan), "--attempt", attempt]
                processes.append(
                    subprocess.Popen(
                        words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment
                    )
                )
        for process in processes:
            process.wait()
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
    return attempt, logs[0]


def _on_slurm(plan: Plan, tell: Tell) -> tuple[str, Path]:
    """Submit a job and wait for its end; Ctrl-C cancels it. Return the attempt and its output."""
    folder = plan.run.preflight
    with atomic_folder(folder / "code") as code:
        source_archive.copy_to(code)
    script = folder / "job.sh"
    write_text(script, preflight_script.script(plan, command(plan)))
    job = submission.sbatch([str(script)], submission.shell_here(os.environ))
    tell(f"job {job}: {script}")
    try:
        _wait(job, preflight_script.job_name(plan), tell)
    except KeyboardInterrupt:
        queue.cancel([job])
        raise
    return f"{job}.0", folder / f"job-{job}.out"


def _wait(job: str, name: str, tell: Tell) -> None:
    told = ""
    while mine := [each for each in queue.jobs(name) if each.id == job]:
        now = mine[0]
        text = f"job {job} is {now.state.lower()}" + (
            f": {now.nodes or now.reason}" if now.state != "COMPLETING" else ""
        )
        if text != told and now.state in ("PENDING", "RUNNING"):
            tell(text)
        told = text
        time.sleep(POLL_S)
