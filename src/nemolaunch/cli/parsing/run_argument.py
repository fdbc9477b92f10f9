"""What commands about one run share: `RUN`, and `--ssh` for a run on a cluster that this machine reaches with ssh."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.parsing.over_ssh import add_ssh_flags, elsewhere
from nemolaunch.cli.views.render import Command, guarded


def run_parser(prog: str, *, description: str, example: str, required: bool = True) -> Parser:
    """Return the parser of a command about one run; where RUN is not required, the command is about all of them."""
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
    """Return a command's `main`: parses, does the work, or with `--ssh` has the same command run on the cluster."""

    @guarded
    def main(argv: list[str] | None = None) -> int:
        made = parser()
        args = made.parse_args(argv)
        if args.ssh:
            return elsewhere(args, made.prog.removeprefix("nemolaunch "), argv)
        return work(args)

    return main
