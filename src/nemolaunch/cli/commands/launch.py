"""Starts a planned job and shows it run: steps, loss, tokens/s, time left."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

from rich.console import Console

from nemolaunch.cli.commands.follow import follow_slurm
from nemolaunch.cli.views.watch import say, say_done, short, watch
from nemolaunch.errors import NemolaunchError
from nemolaunch.job import Job
from nemolaunch.launch import local
from nemolaunch.observe import slurm_run
from nemolaunch.observe.diagnosis import diagnose
from nemolaunch.observe.metrics import Follower
from nemolaunch.planning import Plan
from nemolaunch.run.folder import end_step
from nemolaunch.run.lock import RunLock
from nemolaunch.slurm import batch_job


def launch(plan: Plan, job: Job) -> int:
    """Run the plan to its end. Returns 0, or raises NemolaunchError with the first rank's error."""
    console = Console(stderr=False)
    done = local.finished_step(plan)
    if done is not None:
        say_done(console, f"this run has already finished step {done}; raise --max-steps to go on")
        return 0
    if plan.submission is not None:
        return _launch_on_slurm(console, plan, job.model.hf_token)
    lock = RunLock(plan.run.lock)
    lock.take()
    try:
        return _launch_here(console, plan, job.model.hf_token)
    finally:
        lock.release()


def _launch_here(console: Console, plan: Plan, hf_token: str | None) -> int:
    """Train on this machine."""
    local.prepare(plan, hf_token)
    _say_start(console, plan)
    with _signals_as_interrupts():
        running = local.LocalJob(plan, hf_token)
        try:
            code = watch(console, int(plan.values["max_steps"]), _Here(plan, running))
        except KeyboardInterrupt:
            say(console, "stopping every process of the job …")
            local.note_end(plan.run, "stopped", "interrupted")
            running.stop()
            _say_stopped(console, plan)
            return 130
        finally:
            running.sweep()
    if code:
        found = diagnose(plan.run, code)
        local.note_end(plan.run, "failed", found.what)
        raise NemolaunchError("\n  ".join([f"the job failed. {found.what}", *found.details()]))
    last = plan.run.last_checkpoint()
    where = short(last or plan.run.checkpoints)
    say_done(console, f"finished step {_last_step(plan)}; checkpoint {where}")
    return 0


class _Here:
    """A job on this machine as `watch` sees it."""

    def __init__(self, plan: Plan, job: local.LocalJob) -> None:
        self.poll = job.poll
        self._follower = Follower(plan.run.metrics)

    def new_rows(self) -> list[dict[str, Any]]:
        return self._follower.new_rows()


def _last_step(plan: Plan) -> int:
    return end_step(plan.run, int(plan.values["max_steps"])) or int(plan.values["max_steps"])


def _launch_on_slurm(console: Console, plan: Plan, hf_token: str | None) -> int:
    """Submit the plan and, unless detached, follow it to its end. Ctrl-C leaves the job to itself."""
    with slurm_run.claimed(plan):
        plan = slurm_run.from_scratch(plan)
        local.prepare(plan, hf_token)
        _say_start(console, plan)
        number = slurm_run.submit(plan, hf_token)
    say(console, f"job {number} is submitted: {batch_job.script_path(plan)}")
    where = short(plan.run.root)
    hint = f"`nemolaunch status {where}` shows it, `nemolaunch cancel {where}` ends it"
    if plan.values["detach"]:
        say(console, hint)
        return 0
    return follow_slurm(console, plan, hint)


@contextlib.contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """Treat SIGTERM and a closed terminal like Ctrl-C while a job runs, so that none of it is left behind.

    A signal that is ignored, as under `nohup`, stays ignored.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say_start(console: Console, plan: Plan) -> None:
    where = "CPU rehearsal" if plan.device == "cpu" else "GPU"
    start = "from scratch"
    last = plan.run.last_checkpoint() if plan.values["resume"] == "auto" else None
    if last is not None:
        start = f"from {short(last)}"
    elif plan.values["nemo_model"]:
        start = f"with weights of {plan.values['nemo_model']}"
    steps = f"{plan.values['max_steps']} steps of {plan.tokens_per_step:,} tokens"
    say(console, f"{plan.model}: {steps}, {plan.world_size} process(es), {where}, {start}")
    say(console, f"logs of NeMo and torch: {short(plan.run.rank_log(0))}")


def _say_stopped(console: Console, plan: Plan) -> None:
    last = plan.run.last_checkpoint()
    goes_on = "starts again from step 0: there is no checkpoint yet"
    if last is not None and plan.values["resume"] == "auto":
        goes_on = f"goes on from {short(last)}"
    say(console, f"stopped; the same command {goes_on}")
