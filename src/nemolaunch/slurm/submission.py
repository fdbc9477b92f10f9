"""Submit to Slurm, and record the submission in the run folder."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from nemolaunch.errors import NemolaunchError
from nemolaunch.facts.slurm_variables import plain_environment
from nemolaunch.planning import Plan
from nemolaunch.run.lock import RunLock
from nemolaunch.slurm import own_jobs
from nemolaunch.slurm import queue as slurm_queue
from nemolaunch.slurm.queue import QueuedJob
from nemolaunch.system.atomic_files import private_opener, write_text

# Runs a shell command on the machine that submits. Returns its exit code, output and errors.
Shell = Callable[[str], tuple[int, str, str]]
Tell = Callable[[str], None]

DEQUEUE_S = 60.0  # Slurm takes a moment to remove a job whose run is over: its processes have to exit first


def shell_here(environment: Mapping[str, str]) -> Shell:
    """Return a shell on this machine with that environment, without what would override a job's own options."""
    kept = plain_environment(environment)

    def run(command: str) -> tuple[int, str, str]:
        done = subprocess.run(
            ["bash", "-c", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=kept,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return run


def sbatch(words: Sequence[str], shell: Shell) -> str:
    """Submit a batch script with `sbatch WORDS`. Return the job's id.

    Raises:
        NemolaunchError: sbatch is not installed, or Slurm rejects the job.
    """
    code, out, err = shell(shlex.join(["sbatch", "--parsable", *words]))
    if code == 127:
        raise NemolaunchError("--executor slurm needs sbatch, which is not installed on this machine")
    if code:
        said = " ".join(dict.fromkeys(line.strip() for line in err.splitlines() if line.strip()))
        raise NemolaunchError(f"the job was not submitted: {said or f'sbatch exited with code {code}'}")
    return out.strip().splitlines()[-1].partition(";")[0]


@contextlib.contextmanager
def claimed(plan: Plan, tell: Tell) -> Iterator[None]:
    """Hold the run folder exclusively while a submission changes it.

    Raises:
        NemolaunchError: a job of this run is already queued, or another process is writing to the folder.
    """
    waiting = _left_in_queue(plan, tell)
    if waiting:
        raise NemolaunchError(
            f"job {waiting[0].id} of this run is already in the queue ({waiting[0].state.lower()}); "
            f"cancel it with `nemolaunch cancel {plan.folder}`, or use another --experiment"
        )
    lock = RunLock(plan.run.lock, dead=_is_job_gone)
    lock.take()
    try:
        yield
    finally:
        lock.release()


def _left_in_queue(plan: Plan, tell: Tell) -> list[QueuedJob]:
    """Return the run's queued jobs; if the run's files say that it is over, first give them time to exit."""
    until, told = time.monotonic() + DEQUEUE_S, False
    while waiting := own_jobs.queued(plan):
        # not `finished`: this plan may ask for more steps than the run ended after
        over = plan.run.finished.exists() or plan.run.slurm_stopped.exists()
        if not over or time.monotonic() > until:
            break
        if not told:
            tell(f"waiting for job {waiting[0].id} of this run to leave the queue")
        told = True
        time.sleep(1)
    return waiting


def _is_job_gone(job: str) -> bool:
    """Return whether a job that did not release its lock is over."""
    return slurm_queue.final_state(job) not in ("", *slurm_queue.LIVING)


def start_over(plan: Plan) -> None:
    """Prepare the folder for a submission by the user: clear the reason why the run ended before."""
    run = plan.run
    run.slurm.mkdir(parents=True, exist_ok=True)
    for path in (run.slurm_current, run.slurm_next, run.slurm_stopped, run.finished):
        path.unlink(missing_ok=True)
    with open(run.slurm_attempts, "a", encoding="utf-8") as file:
        file.write(f"- 0 {int(time.time())} submitted\n")


def note_submission(plan: Plan, job: str, log: str) -> None:
    """Record the job's id, if there is one, and append the output of the submission to the launcher's log."""
    opener = private_opener if plan.is_private else None
    with open(plan.run.launcher_log, "a", encoding="utf-8", opener=opener) as file:
        file.write(log)
    if job:
        write_text(plan.run.slurm_submitted, job + "\n")


def cancel(plan: Plan) -> list[str]:
    """Cancel the run's jobs so that none continues. Return their ids."""
    write_text(plan.run.slurm_stopped, "cancelled by the user\n")
    ids = [slurm_queue.whole_job(job.id) for job in own_jobs.queued(plan)]
    slurm_queue.cancel(ids)
    return list(dict.fromkeys(ids))
