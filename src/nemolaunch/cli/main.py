"""The `nemolaunch` command: finds the subcommand and passes on the rest of the command line.

Each command is a module with `main(argv) -> exit code`, imported only when it is used, so that `nemolaunch --help`
is instant whatever the commands import.
"""

from __future__ import annotations

import difflib
import importlib
import sys

from nemolaunch.cli.parsing.command_table import COMMANDS, GROUPS, module_of
from nemolaunch.cli.views.render import guarded
from nemolaunch.errors import UsageError

EXIT_CODES = {
    0: "success",
    1: "failure, or a problem with what was checked: a job with errors, a failed run, corrupt data",
    2: "invalid command line",
    3: "status: Slurm cannot be reached",
    130: "interrupted by Ctrl-C",
    141: "the reader of a pipe exited",
}


def usage() -> str:
    """Return the text of `nemolaunch --help`."""
    width = max(map(len, COMMANDS))
    lines = ["usage: nemolaunch COMMAND [options]", ""]
    lines += ["Pretrain language models with NVIDIA NeMo 2: from raw text to an exported model."]
    for group, commands in GROUPS.items():
        lines += ["", f"{group}:"]
        lines += [f"  {name:<{width}}  {about}" for name, about in commands.items()]
    lines += ["", "`nemolaunch help COMMAND` shows the options of a command, with an example."]
    lines += ["", "exit codes:", *(f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES.items())]
    return "\n".join(lines)


@guarded
def main(argv: list[str] | None = None) -> int:
    """Run one command. Return the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0
    if argv[0] == "help":
        return main([*argv[1:], "--help"])
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
