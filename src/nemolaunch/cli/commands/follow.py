"""`nemolaunch follow RUN`: show a run on Slurm until it is over, as the command that submitted it does."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.parsing.over_ssh import add_ssh_flags, host_of
from nemolaunch.cli.views.render import guarded
from nemolaunch.errors import NemolaunchError
from nemolaunch.observe import slurm_run
from nemolaunch.observe.metrics import Follower
from nemolaunch.observe.status import run_of
from nemolaunch.planning import Plan

if TYPE_CHECKING:
    from rich.console import Console

POLL_S = 5.0  # a Slurm controller serves thousands of users


def parser() -> argparse.ArgumentParser:
    """Flags of `nemolaunch follow`."""
    p = Parser(
        prog="nemolaunch follow",
        example="nemolaunch follow runs/pretraining",
        description="Show a run on Slurm until it has reached its last step or ended for a reason, which is "
        "then named; the exit code says the same. Ctrl-C leaves the run to itself.",
    )
    p.add_argument("run", type=Path, metavar="RUN", help="run folder")
    p.add_argument("--json", action="store_true", help="one JSON object a line: row, say, end")
    add_ssh_flags(p)
    return p


@guarded
def main(argv: list[str] | None = None) -> int:
    """Follow. Returns the exit code of the run."""
    args = parser().parse_args(argv)
    if args.ssh:
        from nemolaunch.launch.over_ssh import follow_over_ssh

        with host_of(args) as host:
            return follow_over_ssh(host, str(args.run))
    plan = Plan.load(run_of(args.run).plan)
    if plan.submission is None:
        raise NemolaunchError(
            f"{args.run} is not a run on Slurm; `nemolaunch logs {args.run} --follow` shows it"
        )
    if args.json:
        return _as_json(plan)
    from rich.console import Console

    return follow_slurm(Console(), plan, f"`nemolaunch follow {args.run}` shows it again")


class SlurmRun:
    """A run on Slurm as `watch` sees it. Asks Slurm now and then, and says what has changed in the queue."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self._metrics = Follower(plan.run.metrics)
        self._follower = slurm_run.Follower(plan)
        self._say = say
        self._next = 0.0
        self._said = ""
        self.end = slurm_run.Condition(word="running")

    def poll(self) -> int | None:
        if time.monotonic() < self._next:
            return None
        self._next = time.monotonic() + POLL_S
        end = self._follower.poll()
        if news := self._follower.news():
            self._say(news)
        sentence = slurm_run.sentence(self._follower.seen)
        if self._follower.unreachable:
            sentence = f"Slurm cannot be asked just now: {self._follower.unreachable}"
        if sentence and sentence != self._said and end is None:
            self._said = sentence
            self._say(sentence)
        if end is None:
            return None
        self.end = end
        return 0 if end.word == "finished" else 1

    def new_rows(self) -> list[dict[str, Any]]:
        return self._metrics.new_rows()


def follow_slurm(console: Console, plan: Plan, hint: str) -> int:
    """Show a run on Slurm until it is over. Returns 0, or raises NemolaunchError with the reason."""
    from nemolaunch.cli.views.watch import say, say_done, short, watch

    running = SlurmRun(plan, lambda text: say(console, text))
    try:
        watch(console, int(plan.values["max_steps"]), running)
    except KeyboardInterrupt:
        say(console, f"the job goes on; {hint}")
        return 130
    if running.end.word == "finished":
        say_done(console, slurm_run.finish(plan, short))
        return 0
    raise NemolaunchError(slurm_run.verdict(plan, running.end))


def _as_json(plan: Plan) -> int:
    """The same as lines of JSON, for a program at the other end of a connection."""

    def tell(**what: Any) -> None:
        print(json.dumps(what, ensure_ascii=False), flush=True)

    running = SlurmRun(plan, lambda text: tell(say=text))
    code = None
    while code is None:
        time.sleep(0.5)
        code = running.poll()
        for row in running.new_rows():
            tell(row=row)
    tell(end=code, text=slurm_run.verdict(plan, running.end) if code else slurm_run.finish(plan))
    return code
