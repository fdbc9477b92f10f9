"""The `nemolaunch` command: finds the sub-command and hands over the rest of the line.

Each command is a module with `main(argv) -> exit code`, imported only when it is asked for, so that
`nemolaunch --help` stays instant whatever the commands themselves need.
"""

from __future__ import annotations

import difflib
import importlib
import sys

from nemolaunch.cli.parsing.command_table import COMMANDS, GROUPS, module_of
from nemolaunch.cli.views.render import guarded
from nemolaunch.errors import UsageError

EXIT_CODES = {
    0: "it worked",
    1: "it did not, or what was asked about is not well: a job with errors, a run that failed, corrupt data",
    2: "the command cannot be understood as it was typed",
    3: "status: Slurm cannot be asked",
    130: "Ctrl-C",
    141: "the reader of a pipe has gone",
}


def usage() -> str:
    """The text of `nemolaunch --help`."""
    width = max(map(len, COMMANDS))
    lines = ["usage: nemolaunch COMMAND [options]", ""]
    lines += ["From raw text to a trained and exported model with NVIDIA NeMo 2."]
    for group, commands in GROUPS.items():
        lines += ["", f"{group}:"]
        lines += [f"  {name:<{width}}  {about}" for name, about in commands.items()]
    lines += ["", "`nemolaunch COMMAND --help` tells the options of one, with an example."]
    lines += ["", "exit codes:", *(f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES.items())]
    return "\n".join(lines)


@guarded
def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0
    if argv[0] == "--version":
        from importlib.metadata import version

        print("nemolaunch", version("nemolaunch"))
        return 0
    if argv[0] not in COMMANDS:
        near = difflib.get_close_matches(argv[0], COMMANDS, n=3, cutoff=0.4)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        raise UsageError(f"there is no command {argv[0]!r}.{hint} `nemolaunch --help` lists them")
    return int(importlib.import_module(module_of(argv[0])).main(argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
