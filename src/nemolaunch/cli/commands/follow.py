"""`nemolaunch follow RUN`: show a run on Slurm or in a container until it is over, as if it had not been detached."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from nemolaunch.api.run import Run
from nemolaunch.cli.parsing.over_ssh import host_of
from nemolaunch.cli.parsing.run_argument import run_parser
from nemolaunch.cli.views.render import guarded
from nemolaunch.errors import NemolaunchError


def parser() -> argparse.ArgumentParser:
    """Return the parser of `nemolaunch follow`."""
    p = run_parser(
        "nemolaunch follow",
        example="nemolaunch follow runs/pretraining",
        description="Show a run on Slurm or in a container until it reaches its last step, or ends for another reason, "
        "which is then shown. Exit code: 0 if the run finished, else 1. Ctrl-C does not end the run.",
    )
    p.add_argument("--json", action="store_true", help="print one JSON object per line: row, say, end")
    return p


@guarded
def main(argv: list[str] | None = None) -> int:
    """Follow the run. Return its exit code."""
    args = parser().parse_args(argv)
    if args.ssh:
        from nemolaunch.cli.views.live_run import follow_over_ssh

        with host_of(args) as host:
            return follow_over_ssh(host, str(args.run))
    if args.json:
        return _as_json(args)
    from nemolaunch.cli.views.console import SafeConsole
    from nemolaunch.cli.views.live_run import follow
    from nemolaunch.cli.views.watch import say

    console = SafeConsole()
    run = _independent(Run(args.run, tell=lambda text: say(console, text)))
    return follow(console, run, f"follow it again with `nemolaunch follow {args.run}`")


def _independent(run: Run) -> Run:
    if not run.plan.outlives_its_command:
        raise NemolaunchError(
            f"{run.folder} is not a run on Slurm or in a container; use `nemolaunch logs {run.folder} --follow`"
        )
    return run


def _as_json(args: argparse.Namespace) -> int:
    """Print lines of JSON, for a program at the other end of a connection."""

    def tell(**what: Any) -> None:
        print(json.dumps(what, ensure_ascii=False), flush=True)

    run = _independent(Run(args.run, tell=lambda text: tell(say=text)))
    code = None
    while code is None:
        time.sleep(0.5)
        code = run.poll()
        for row in run.new_rows():
            tell(row=row)
    try:
        text = f"finished step {run.conclude(code)}; checkpoint {run.last_checkpoint}"
    except NemolaunchError as error:
        text = str(error)
    tell(end=code, text=text)
    return code
