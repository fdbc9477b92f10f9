"""A run on Slurm: submitted, followed over all its jobs, judged, cancelled.

What is true of a run stands in its folder and in Slurm's queue. NeMo-Run's own status needs Slurm's
accounting and calls a requeued job failed, so it is not asked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nemolaunch.errors import NemolaunchError
from nemolaunch.observe.diagnosis import diagnose, newest_failure
from nemolaunch.planning import Plan
from nemolaunch.run.attempts import starts
from nemolaunch.run.folder import end_step, write_text
from nemolaunch.run.lock import RunLock
from nemolaunch.slurm import batch_job
from nemolaunch.slurm import queue as slurm_queue
from nemolaunch.slurm.queue import QueuedJob

SUBMITTED = "submitted "
SETTLE_S = 15.0  # Slurm takes a moment to put a requeued job back into the queue
LEAVE_S = 60.0  # and one to take a job out whose run is over: its processes have to end first


@dataclass(frozen=True, kw_only=True)
class Condition:
    """How a run stands.

    Attributes:
        word: `finished`, `running`, `waiting`, `blocked`, `stopped`, `ended` or `never submitted`.
        detail: what Slurm or the run's own jobs say about it.
        job: the job that runs or waits, or the last there was.
        jobs: all of the run that are in the queue.
    """

    word: str
    detail: str = ""
    job: str = ""
    jobs: tuple[QueuedJob, ...] = ()

    @property
    def over(self) -> bool:
        return self.word not in ("running", "waiting")


@contextlib.contextmanager
def claimed(plan: Plan) -> Iterator[None]:
    """The run folder to oneself, while a submission changes it.

    Raises:
        NemolaunchError: a job of this run is in the queue already, or somebody else writes the folder.
    """
    waiting = _left_in_queue(plan)
    if waiting:
        raise NemolaunchError(
            f"job {waiting[0].id} of this run is in the queue already ({waiting[0].state.lower()}); "
            f"end it with `nemolaunch cancel {plan.folder}`, or give this one another --experiment"
        )
    lock = RunLock(plan.run.lock, dead=_is_job_gone)
    lock.take()
    try:
        yield
    finally:
        lock.release()


def _left_in_queue(plan: Plan) -> list[QueuedJob]:
    """The run's jobs in the queue; where the run is over by its own files they are first given time to leave."""
    until, told = time.monotonic() + LEAVE_S, False
    while waiting := slurm_queue.jobs(batch_job.job_name(plan)):
        # not `finished`: this plan may ask for more steps than the run was over after
        over = plan.run.finished.exists() or plan.run.slurm_stopped.exists()
        if not over or time.monotonic() > until:
            break
        if not told:
            print(f"waiting for job {waiting[0].id} of this run to leave the queue", file=sys.stderr)
        told = True
        time.sleep(1)
    return waiting


def _is_job_gone(job: str) -> bool:
    """Whether a job that did not give its lock back is over."""
    return slurm_queue.final_state(job) not in ("", *slurm_queue.LIVING)


def submit(plan: Plan, hf_token: str | None = None) -> str:
    """Hand the saved plan to Slurm through NeMo-Run. Returns the job's id.

    The token goes along in the environment, which Slurm passes on to the job, and in no file.

    Raises:
        NemolaunchError: Slurm refuses the job.
    """
    fresh_start(plan)
    number, said = hand_over(plan.run.plan, {"HF_TOKEN": hf_token} if hf_token else {})
    note_submission(plan, number or "", said)
    if number is None:
        raise NemolaunchError(f"the job was not submitted. {reason(said)}\n  log: {plan.run.launcher_log}")
    return number


def hand_over(plan_file: Path, environment: Mapping[str, str], *words: str) -> tuple[str | None, str]:
    """Have NeMo-Run submit a plan. Returns the job's id, None where there is none, and all that was said."""
    command = [sys.executable, "-m", "nemolaunch.launch.nemo_run_job", str(plan_file), *words]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    said = done.stdout + done.stderr
    for line in reversed(done.stdout.splitlines()):
        if line.startswith(SUBMITTED) and done.returncode == 0:
            return line.removeprefix(SUBMITTED).strip(), said
    return None, said


def note_submission(plan: Plan, number: str, said: str) -> None:
    """Keep what was said on the way, and the id of the job if there is one."""
    with open(plan.run.launcher_log, "a", encoding="utf-8") as log:
        log.write(said)
    if number:
        write_text(plan.run.slurm_submitted, number + "\n")


def from_scratch(plan: Plan) -> Plan:
    """The plan with `--resume never` carried out: earlier checkpoints are moved away, and restarts resume."""
    if plan.values["resume"] != "never":
        return plan
    if plan.run.checkpoints.is_dir():
        plan.run.checkpoints.rename(plan.run.root / f"checkpoints-before-{int(time.time())}")
    return dataclasses.replace(plan, values={**plan.values, "resume": "auto"})


def fresh_start(plan: Plan) -> None:
    """Forget what ended the run before: somebody has decided to go on."""
    run = plan.run
    run.slurm.mkdir(parents=True, exist_ok=True)
    for path in (run.slurm_current, run.slurm_next, run.slurm_stopped, run.finished):
        path.unlink(missing_ok=True)
    with open(run.slurm_starts, "a", encoding="utf-8") as file:
        file.write(f"- 0 {int(time.time())} submitted\n")


def reason(output: str) -> str:
    """Slurm's own words out of NeMo-Run's traceback, else its last line.

    They stand there twice, once folded, so that of a line only the beginning is found.
    """
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    said = dict.fromkeys(line for line in lines if line.startswith(("sbatch:", "slurm")))
    whole = [line for line in said if not any(other != line and other.startswith(line) for other in said)]
    return " ".join(whole) or (lines[-1] if lines else "NeMo-Run ended without a word")


def condition(plan: Plan, queue: Sequence[QueuedJob] | None = None) -> Condition:
    """How the run stands now. `queue`: its jobs in the queue, where they are known already.

    Raises:
        slurmqueue.Unreachable: if it is not over by its own files and Slurm cannot be asked.
    """
    if finished(plan):
        return Condition(word="finished", job=_last_job(plan))
    queued = tuple(slurm_queue.jobs(batch_job.job_name(plan)) if queue is None else queue)
    if queued and queued[0].active:
        return Condition(word="running", detail=_nodes(queued[0]), job=queued[0].id, jobs=queued)
    stopped = _text(plan.run.slurm_stopped)
    last = _last_job(plan)
    if stopped:
        return Condition(word="stopped", detail=stopped, job=last, jobs=queued)
    if queued:
        return _waiting(plan, queued, last)
    if not last:
        return Condition(word="never submitted")
    return Condition(word="ended", detail=slurm_queue.final_state(last), job=last)


def _nodes(job: QueuedJob) -> str:
    return job.nodes if job.state == "RUNNING" else f"{job.nodes}, {job.state.lower()}"


def _waiting(plan: Plan, queued: tuple[QueuedJob, ...], last: str) -> Condition:
    """A run none of whose jobs runs, but at least one waits."""
    first = queued[0]
    if first.reason == slurm_queue.NEVER:
        detail = (
            f"{first.reason}: the job it is to follow failed; `nemolaunch cancel` takes it out of the queue"
        )
        return Condition(word="blocked", detail=detail, job=first.id, jobs=queued)
    if last not in [job.id for job in queued] and slurm_queue.final_state(last) == "CANCELLED":
        return Condition(word="stopped", detail=f"job {last} was cancelled", job=last, jobs=queued)
    return Condition(word="waiting", detail=first.reason, job=first.id, jobs=queued)


def finished(plan: Plan) -> bool:
    """Whether the last step is done."""
    return end_step(plan.run, int(plan.values["max_steps"])) is not None


def _last_job(plan: Plan) -> str:
    return ((_text(plan.run.slurm_current) or _text(plan.run.slurm_submitted)).split() or [""])[0]


def _text(path: os.PathLike[str]) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def restarts(plan: Plan) -> int:
    """How often the run was started again since it was last submitted by hand."""
    return max(0, len(starts(plan.run)) - 1)


def sentence(now: Condition | None) -> str:
    """How the run stands, in words; empty where there is nothing to say."""
    if now is None or now.word == "finished":
        return ""
    if now.word == "running":
        return f"job {now.job} runs on {now.detail}"
    if now.word == "waiting":
        start = now.jobs[0].start
        expected = f", expected to start {start}" if start not in ("N/A", "") else ""
        return f"job {now.job} waits: {now.detail}{expected}"
    if now.word == "ended":
        return f"job {now.job} has left the queue: {now.detail or 'Slurm does not remember how'}"
    return f"the run is {now.word}" + (f": {now.detail}" if now.detail else "")


def verdict(plan: Plan, end: Condition) -> str:
    """Why a run that is over has not finished, with its first failing rank and where to read on."""
    text = f"the run did not finish: {sentence(end).removeprefix('the run is ')}"
    if end.word == "blocked" or not failed(plan, end.detail, end.job):
        return text
    return "\n  ".join([text, *diagnose(plan.run).lines()])


def finish(plan: Plan, shown: Callable[[Path], str] = str) -> str:
    """What is said of a run that has finished."""
    where = shown(plan.run.last_checkpoint() or plan.run.checkpoints)
    return f"finished step {plan.values['max_steps']}; checkpoint {where}"


def failed(plan: Plan, detail: str, job: str) -> bool:
    """Whether something went wrong in a run that is over: not where somebody cancelled it, or it left in order.

    Args:
        detail, job: of its condition.
    """
    return not (
        "cancelled" in detail.lower()
        or detail.startswith(f"job {job} left at")
        or not plan.run.slurm_current.exists()
    )


class Follower:
    """Waits for the end of a run, over restarts and over times in which Slurm does not answer."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._quiet_since: float | None = None
        self._explained = ""
        self.seen: Condition | None = None
        self.unreachable = ""  # why Slurm cannot be asked

    def poll(self) -> Condition | None:
        """The final condition once there is one, else None.

        Raises:
            slurmqueue.NotInstalled: Slurm cannot ever be asked from here.
        """
        try:
            now = condition(self._plan)
        except slurm_queue.NotInstalled:
            raise
        except slurm_queue.Unreachable as error:
            self.unreachable = str(error)
            return None
        self.seen, self.unreachable = now, ""
        if not now.over:
            self._quiet_since = None
            return None
        if now.word in ("finished", "stopped", "blocked"):
            return now
        self._quiet_since = self._quiet_since or time.monotonic()
        return now if time.monotonic() - self._quiet_since > SETTLE_S else None

    def news(self) -> str:
        """Why the newest start that is over ended before the run did, once for each; else empty."""
        if self.seen is None or self.seen.word not in ("running", "waiting"):
            return ""
        alive = self.seen.word == "running"
        over = starts(self._plan.run)[: -1 if alive else None]
        if not over or over[-1].name == self._explained:
            return ""
        self._explained = over[-1].name
        found = newest_failure(self._plan.run, alive)
        left = f"job {over[-1].job} left in order, to go on later"
        return "\n  ".join([f"job {over[-1].job} failed", *found.lines()]) if found else left


def cancel(plan: Plan) -> list[str]:
    """Cancel the run's jobs, so that none goes on. Returns their ids."""
    write_text(plan.run.slurm_stopped, "cancelled by the user\n")
    ids = [slurm_queue.whole_job(job.id) for job in slurm_queue.jobs(batch_job.job_name(plan))]
    slurm_queue.cancel(ids)
    return list(dict.fromkeys(ids))
