"""`nemolaunch completion`: print a script that completes commands, flags and their values."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.views.render import guarded
from nemolaunch.errors import NemolaunchError

SHELLS = ("bash", "zsh")
EXAMPLE = """\
nemolaunch completion bash > ~/.local/share/bash-completion/completions/nemolaunch
nemolaunch completion zsh > ~/.zfunc/_nemolaunch"""
FOLDERS = ("run", "runs", "run_folder", "checkpoint", "output_dir", "output_path", "source")


def parser() -> argparse.ArgumentParser:
    """Return the parser of `nemolaunch completion`."""
    p = Parser(
        prog="nemolaunch completion",
        example=EXAMPLE,
        description="Print a completion script. For zsh, its folder must be in fpath before compinit is called.",
    )
    p.add_argument("shell", choices=SHELLS, help="bash or zsh")
    return p


@guarded
def main(argv: list[str] | None = None) -> int:
    """Print the script. Return the exit code."""
    args = parser().parse_args(argv)
    print(script(args.shell))
    return 0


def script(shell: str) -> str:
    """Return the completion script.

    Raises:
        NemolaunchError: shtab is not installed.
    """
    try:
        import shtab
    except ImportError:
        raise NemolaunchError("completion needs shtab: pip install shtab") from None
    from nemolaunch.cli.parsing.flags import add_job_flags
    from nemolaunch.cli.parsing.tree import sub_commands, whole

    top = whole()
    for name, command in sub_commands(top):
        if name == "resume":  # accepts the flags of a job after the run folder
            command._actions.pop()
            add_job_flags(command)
        for parser in (command, *(sub for _, sub in sub_commands(command))):
            _complete_paths(parser, shtab.FILE, shtab.DIRECTORY)
    return str(shtab.complete(top, shell=shell))


def _complete_paths(parser: argparse.ArgumentParser, file: object, folder: object) -> None:
    """Complete file names for files, and folder names for runs and checkpoints."""
    for action in parser._actions:
        metavar = str(action.metavar)
        if action.dest in FOLDERS or metavar in ("DIR", "CKPT"):
            action.complete = folder  # type: ignore[attr-defined]
        elif action.type is Path or metavar in ("FILE", "PATH", "PREFIX"):
            action.complete = file  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(main())
