"""Starts a planned job and shows it run: steps, loss, tokens/s, time left."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from nemolaunch import batchjob, execute, slurm_run
from nemolaunch.cli.pace import Pace
from nemolaunch.diagnose import diagnose
from nemolaunch.errors import NemolaunchError
from nemolaunch.job import Job
from nemolaunch.observe.metrics import Follower
from nemolaunch.plan import Plan
from nemolaunch.runlock import RunLock

SLURM_POLL_S = 5.0  # a Slurm controller serves thousands of users


class Running(Protocol):
    """A job that can be asked for its exit code; None while it runs."""

    def poll(self) -> int | None: ...


def launch(plan: Plan, job: Job) -> int:
    """Run the plan to its end. Returns 0, or raises NemolaunchError with the first rank's error."""
    console = Console(stderr=False)
    done = execute.finished_step(plan)
    if done is not None:
        _say_done(console, f"this run has already finished step {done}; raise --max-steps to go on")
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
    execute.prepare(plan, hf_token)
    _say_start(console, plan)
    with _signals_as_interrupts():
        running = execute.LocalJob(plan, hf_token)
        try:
            code = _watch(console, plan, running)
        except KeyboardInterrupt:
            _say(console, "stopping every process of the job …")
            running.stop()
            _say_stopped(console, plan)
            return 130
        finally:
            running.sweep()
    if code:
        found = diagnose(plan.run, code)
        raise NemolaunchError("\n  ".join([f"the job failed. {found.what}", *found.details()]))
    last = plan.run.last_checkpoint()
    where = _short(last or plan.run.checkpoints)
    _say_done(console, f"finished step {plan.values['max_steps']}; checkpoint {where}")
    return 0


def _launch_on_slurm(console: Console, plan: Plan, hf_token: str | None) -> int:
    """Submit the plan and, unless detached, follow it to its end. Ctrl-C leaves the job to itself."""
    with slurm_run.claimed(plan):
        plan = slurm_run.from_scratch(plan)
        execute.prepare(plan, hf_token)
        _say_start(console, plan)
        number = slurm_run.submit(plan, hf_token)
    _say(console, f"job {number} is submitted: {batchjob.script_path(plan)}")
    where = _short(plan.run.root)
    hint = f"`nemolaunch status {where}` shows it, `nemolaunch cancel {where}` ends it"
    if plan.values["detach"]:
        _say(console, hint)
        return 0
    return follow_slurm(console, plan, hint)


def follow_slurm(console: Console, plan: Plan, hint: str) -> int:
    """Show a run on Slurm until it is over. Returns 0, or raises NemolaunchError with the reason."""
    running = _OnSlurm(plan, lambda text: _say(console, text))
    try:
        _watch(console, plan, running)
    except KeyboardInterrupt:
        _say(console, f"the job goes on; {hint}")
        return 130
    end = running.end
    if end.word == "finished":
        where = _short(plan.run.last_checkpoint() or plan.run.checkpoints)
        _say_done(console, f"finished step {plan.values['max_steps']}; checkpoint {where}")
        return 0
    raise NemolaunchError(slurm_run.verdict(plan, end))


class _OnSlurm:
    """A run on Slurm as `_watch` sees it. Asks Slurm now and then, and says what has changed in the queue."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self._follower = slurm_run.Follower(plan)
        self._say = say
        self._next = 0.0
        self._said = ""
        self.end = slurm_run.Condition(word="running")

    def poll(self) -> int | None:
        if time.monotonic() < self._next:
            return None
        self._next = time.monotonic() + SLURM_POLL_S
        end = self._follower.poll()
        sentence = slurm_run.sentence(self._follower.seen)
        if sentence and sentence != self._said:
            self._said = sentence
            self._say(sentence)
        if end is None:
            return None
        self.end = end
        return 0 if end.word == "finished" else 1


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


def _say(console: Console, text: str) -> None:
    """One line, however long, exactly as it is."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _say_done(console: Console, text: str) -> None:
    console.print("[green]✓[/] ", end="")
    _say(console, text)


def _say_start(console: Console, plan: Plan) -> None:
    where = "CPU rehearsal" if plan.device == "cpu" else "GPU"
    start = "from scratch"
    last = plan.run.last_checkpoint() if plan.values["resume"] == "auto" else None
    if last is not None:
        start = f"from {_short(last)}"
    elif plan.values["nemo_model"]:
        start = f"with weights of {plan.values['nemo_model']}"
    steps = f"{plan.values['max_steps']} steps of {plan.tokens_per_step:,} tokens"
    _say(console, f"{plan.model}: {steps}, {plan.world_size} process(es), {where}, {start}")
    _say(console, f"logs of NeMo and torch: {_short(plan.run.rank_log(0))}")


def _say_stopped(console: Console, plan: Plan) -> None:
    last = plan.run.last_checkpoint()
    goes_on = "starts again from step 0: there is no checkpoint yet"
    if last is not None and plan.values["resume"] == "auto":
        goes_on = f"goes on from {_short(last)}"
    _say(console, f"stopped; the same command {goes_on}")


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _watch(console: Console, plan: Plan, running: Running) -> int:
    """Follow the metrics file until the job ends. Returns the job's exit code."""
    steps = int(plan.values["max_steps"])
    follower = Follower(plan.run.metrics)
    if not console.is_terminal:
        lines = _Lines(console, steps)
        return _follow(follower, running, lines.show)
    columns = (
        SpinnerColumn(),
        TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
        BarColumn(24),
        TextColumn("{task.fields[status]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, refresh_per_second=4) as progress:
        task = progress.add_task("train", total=steps, status="starting NeMo …")
        pace = Pace()
        return _follow(follower, running, lambda row: _show(progress, task, row, pace, steps))


def _follow(follower: Follower, running: Running, show: Callable[[dict[str, Any]], None]) -> int:
    while True:
        code = running.poll()
        for row in follower.new_rows():
            show(row)
        if code is not None:
            return code
        time.sleep(0.1)


def _show(progress: Progress, task: TaskID, row: dict[str, Any], pace: Pace, steps: int) -> None:
    if row.get("event") == "start":
        progress.update(task, completed=row["step"], status="first step …")
    elif "loss" in row:
        pace.add(row)
        progress.update(task, completed=row["step"], status=_status(row, pace, steps))


def _status(row: dict[str, Any], pace: Pace, steps: int) -> str:
    eta = _duration(pace.left_s(steps))
    return f"loss {row['loss']:.3f}  {pace.tokens_per_s():,.0f} tokens/s  ETA {eta}"


def _duration(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


class _Lines:
    """For logs and pipes: a plain line now and then instead of a moving bar."""

    def __init__(self, console: Console, steps: int) -> None:
        self._console, self._steps, self._next = console, steps, 0.0
        self._pace = Pace()

    def show(self, row: dict[str, Any]) -> None:
        if "val_loss" in row:
            _say(self._console, f"step {row['step']}/{self._steps}  validation loss {row['val_loss']:.3f}")
        if "loss" not in row:
            return
        self._pace.add(row)
        if time.monotonic() < self._next and row["step"] < self._steps:
            return
        self._next = time.monotonic() + 5.0
        status = _status(row, self._pace, self._steps)
        _say(self._console, f"step {row['step']}/{self._steps}  {status}")
