"""What commands about one run share: `RUN`, and `--ssh` for a run on a cluster reached over SSH."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.parsing.over_ssh import add_ssh_flags, elsewhere
from nemolaunch.cli.views.render import Command, guarded


def run_parser(prog: str, *, description: str, example: str, required: bool = True) -> Parser:
    """Return the parser of a command about one run, or about all runs if RUN is not required and not given."""
    parser = Parser(prog=prog, description=description, example=example)
    if required:
        parser.add_argument("run", type=Path, metavar="RUN", help="run folder")
    else:
        parser.add_argument("run", nargs="?", type=Path, metavar="RUN", help="run folder (default: list all)")
    add_ssh_flags(parser)
    return parser


def run_command(
    parser: Callable[[], argparse.ArgumentParser], work: Callable[[argparse.Namespace], int]
) -> Command:
    """Return a command's `main`, which parses and does the work; with `--ssh`, the command runs on the cluster."""

    @guarded
    def main(argv: list[str] | None = None) -> int:
        made = parser()
        args = made.parse_args(argv)
        if args.ssh:
            return elsewhere(args, made.prog.removeprefix("nemolaunch "), argv)
        return work(args)

    return main
