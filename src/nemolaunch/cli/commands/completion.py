"""`nemolaunch completion`: print a script that completes commands, flags and their values."""

from __future__ import annotations

import argparse
import functools
import re
import sys
from pathlib import Path
from typing import Any

from nemolaunch import catalogue
from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.views.render import guarded
from nemolaunch.errors import NemolaunchError

SHELLS = ("bash", "zsh", "fish")
EXAMPLE = """\
nemolaunch completion bash > ~/.local/share/bash-completion/completions/nemolaunch
nemolaunch completion zsh > ~/.zfunc/_nemolaunch
nemolaunch completion fish > ~/.config/fish/completions/nemolaunch.fish"""
MODEL = "MODEL"
FOLDERS = ("run", "runs", "run_folder", "checkpoint", "output_dir", "output_path", "source")


def parser() -> argparse.ArgumentParser:
    """Return the parser of `nemolaunch completion`."""
    p = Parser(
        prog="nemolaunch completion",
        example=EXAMPLE,
        description="Print a completion script. For zsh, its folder must be in fpath before compinit is called.",
    )
    p.add_argument("shell", choices=SHELLS, help="bash, zsh or fish")
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
        if name == "resume" and isinstance(
            command, Parser
        ):  # accepts the flags of a job after the run folder
            command._actions.pop()
            add_job_flags(command)
        for parser in (command, *(sub for _, sub in sub_commands(command))):
            _complete_paths(parser, shtab.FILE, shtab.DIRECTORY)
            _complete_models(parser)
    text = str(shtab.complete(top, shell=shell))
    # shtab writes -gbs as a short option, which in fish has one letter
    return re.sub(r" -s (\w\w+)", r" -o \1", text) if shell == "fish" else text


def _complete_models(parser: argparse.ArgumentParser) -> None:
    """Complete the names of models, or files, where a flag takes either."""
    for action in parser._actions:
        is_model = "-M" in action.option_strings if action.option_strings else action.metavar == MODEL
        if is_model:
            action.complete = _models()  # type: ignore[attr-defined]


@functools.cache
def _models() -> dict[str, Any]:
    """Return how each shell completes the name of a model, in shtab's form."""
    names = " ".join(model_names())
    bash = f'_nemolaunch_models() {{\n  compgen -W "{names}" -- $1\n  compgen -f -- $1\n}}'
    zsh = f"_nemolaunch_models() {{\n  compadd {names}\n  _files\n}}"
    return {
        "bash": "_nemolaunch_models",
        "zsh": "_nemolaunch_models",
        "fish": f"{names} (__fish_complete_path (commandline -ct))",
        "preamble": {"bash": bash, "zsh": zsh},
    }


def model_names() -> list[str]:
    """Return what `--model-name` takes, besides files."""
    flavours, recipes = catalogue.flavours(), [recipe.name for recipe in catalogue.recipes()]
    return sorted({*flavours, *recipes, *catalogue.only_in_bridge(), "hf"})


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
