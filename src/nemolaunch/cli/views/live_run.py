"""Start a planned job and show its progress: steps, loss, tokens/s, time left."""

from __future__ import annotations

import contextlib
import shlex
import signal
from collections.abc import Callable, Iterator
from types import FrameType

from rich.console import Console

from nemolaunch.api.launch import launch
from nemolaunch.api.run import Run
from nemolaunch.cli.views.console import SafeConsole
from nemolaunch.cli.views.watch import say, say_done, short, watch
from nemolaunch.errors import NemolaunchError
from nemolaunch.launching import over_ssh, remote_run
from nemolaunch.launching.prepare import finished_step
from nemolaunch.launching.secrets import Secrets
from nemolaunch.launching.ssh_host import SshHost
from nemolaunch.planning import Plan
from nemolaunch.run.metrics import rows
from nemolaunch.slurm import batch_job
from nemolaunch.system.quantities import counted

SAVING = "saving a checkpoint, then stopping; Ctrl-C again stops without one …"


def launch_and_show(plan: Plan, secrets: Secrets) -> int:
    """Run the plan to its end. Return 0, or raise NemolaunchError with the error of the first failed rank."""
    console = SafeConsole()
    done = finished_step(plan)
    if done is not None:
        return _say_finished(console, done)
    _say_start(console, plan)
    if plan.submission is not None:
        return _on_slurm(console, plan, secrets)
    if plan.container is not None:
        return _in_container(console, plan, secrets)
    with signals_as_interrupts():
        run = launch(plan, hf_token=secrets.hf_token)
        try:
            code = watch(console, plan.max_steps, run)
        except KeyboardInterrupt:
            say(console, SAVING if run.saves_when_stopped else "stopping all processes of the job …")
            run.stop("interrupted")
            end = run.status()
            if end.state == "failed":
                raise NemolaunchError(f"the job failed before it was stopped. {end.detail}") from None
            if end.state != "finished":
                _say_stopped(console, plan)
                return 130
            code = 0  # only evaluations were left
        last_step = run.conclude(code)
    _say_checkpoint(console, run, last_step)
    return 0


def _on_slurm(console: Console, plan: Plan, secrets: Secrets) -> int:
    """Submit the plan and, unless detached, follow it to its end."""
    run = launch(plan, hf_token=secrets.hf_token, tell=_teller(console))
    hint = _hint(plan)
    if plan.job.launch.detach:
        say(console, hint)
        return 0
    return follow(console, run, hint)


def _hint(plan: Plan) -> str:
    """Return how to look at a run that outlives this command, and how to end it."""
    where = short(plan.run.root)
    return f"see `nemolaunch status {where}`; end it with `nemolaunch cancel {where}`"


def _in_container(console: Console, plan: Plan, secrets: Secrets) -> int:
    """Start the plan's container and, unless detached, follow it to its end. Ctrl-C has the run save and exit.

    A closed terminal ends this command, not the run.
    """
    hint = _hint(plan)
    run = launch(plan, hf_token=secrets.hf_token, tell=_teller(console))
    if plan.job.launch.detach:
        say(console, hint)
        return 0
    with signals_as_interrupts(signal.SIGTERM):
        try:
            code = watch(console, plan.max_steps, run)
        except KeyboardInterrupt:
            say(console, SAVING)
            run.stop("interrupted")
            if run.status().state != "finished":
                _say_stopped(console, plan)
                return 130
            code = 0
        last_step = run.conclude(code)
    _say_checkpoint(console, run, last_step)
    return 0


def follow(console: Console, run: Run, hint: str) -> int:
    """Show a run on Slurm or in a container until it is over; Ctrl-C does not end it.

    Return its exit code; raise NemolaunchError with the reason if it ended before its last step.
    """
    try:
        code = watch(console, run.plan.max_steps, run)
    except KeyboardInterrupt:
        say(console, f"the job continues; {hint}")
        return 130
    _say_checkpoint(console, run, run.conclude(code))
    return 0


def launch_over_ssh(plan: Plan, secrets: Secrets, host: SshHost) -> int:
    """Submit the plan to a cluster over SSH and, unless detached, follow it to its end. Return its exit code."""
    console = SafeConsole()
    done = over_ssh.submit(plan, secrets, host, _teller(console))
    if done.finished is not None:
        return _say_finished(console, done.finished)
    say(console, f"submitted job {done.job}: {host.name}:{batch_job.script_path(plan)}")
    hint = f"see `nemolaunch status --ssh {host.name} {plan.folder}`"
    if plan.job.launch.detach:
        say(console, hint)
        return 0
    return _follow_over_ssh(console, host, plan.folder, plan.max_steps, hint)


def follow_over_ssh(host: SshHost, folder: str) -> int:
    """Show a run on a cluster reached over SSH until it is over. Return its exit code."""
    steps = remote_run.max_steps_of(host, folder)
    hint = f"follow it again with `nemolaunch follow --ssh {host.name} {folder}`"
    return _follow_over_ssh(SafeConsole(), host, folder, steps, hint)


def _follow_over_ssh(console: Console, host: SshHost, folder: str, steps: int, hint: str) -> int:
    running = remote_run.RemoteRun(host, folder, _teller(console))
    try:
        code = watch(console, steps, running)
    except KeyboardInterrupt:
        say(console, f"the job continues; {hint}")
        return 130
    finally:
        running.close()
    if code:
        raise NemolaunchError(running.verdict)
    say_done(console, running.verdict)
    return 0


@contextlib.contextmanager
def signals_as_interrupts(*given: signal.Signals) -> Iterator[None]:
    """Treat SIGTERM and a closed terminal, or the given signals, like Ctrl-C while a job runs.

    So no process is left behind.

    A signal that is already ignored, e.g. under `nohup`, stays ignored.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = [
        n for n in given or (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN
    ]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _teller(console: Console) -> Callable[[str], None]:
    return lambda text: say(console, text)


def _say_finished(console: Console, step: int) -> int:
    say_done(console, f"this run has already finished step {step}; raise --max-steps to continue it")
    return 0


def _say_checkpoint(console: Console, run: Run, last_step: int) -> None:
    where = short(run.last_checkpoint or run.folder / "checkpoints")
    say_done(console, f"finished step {last_step}; checkpoint {where}")
    if run.plan.evaluates and last_step not in {row["step"] for row in rows(run.plan.run.evaluations)}:
        log = short(run.plan.run.evaluation_log)
        say(
            console,
            f"this checkpoint was not evaluated: {log} says why; `nemolaunch eval watch --once` can do it",
        )
    for line in next_lines(run):
        say(console, line)


def next_lines(run: Run) -> list[str]:
    """Return the commands that a user of a finished run wants next, with its own paths."""
    where = shlex.quote(short(run.folder))
    masked = run.plan.job.objective.objective == "mlm"
    model = (
        f"fill-mask {where} --text 'It was a [MASK] morning.'"
        if masked
        else f"generate {where} --prompt 'It was'"
    )
    commands = (f"report {where}", model, f"convert {where} {where}/hf")
    return ["next:", *(f"  nemolaunch {command}" for command in commands)]


def _say_start(console: Console, plan: Plan) -> None:
    where = "CPU rehearsal" if plan.device == "cpu" else "GPU"
    start = "from scratch"
    last = plan.run.last_checkpoint() if plan.job.checkpoint.resume == "auto" else None
    if last is not None:
        start = f"from {short(last)}"
    elif plan.job.model.nemo_model:
        start = f"with weights of {plan.job.model.nemo_model}"
    steps = f"{plan.max_steps} steps of {plan.tokens_per_step:,} tokens"
    say(
        console,
        f"{plan.model}: {steps}, {counted(plan.world_size, 'process', 'processes')}, {where}, {start}",
    )
    if plan.shrunk:
        say(console, f"dev run: {', '.join(plan.shrunk)}")
    say(console, f"log of the first rank: {short(plan.run.rank_log(0))}")


def _say_stopped(console: Console, plan: Plan) -> None:
    last = plan.run.last_checkpoint()
    then = "starts over from step 0: there is no checkpoint yet"
    if last is not None and plan.job.checkpoint.resume == "auto":
        then = f"resumes from {short(last)}"
    say(console, f"stopped; the same command {then}")
