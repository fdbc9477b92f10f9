"""Small things every command's argparse parser shares."""

from __future__ import annotations

import argparse
import sys


def normalise_long_options(argv: list[str] | None) -> list[str]:
    """Let `--long_name` stand for `--long-name`. Values, also those after `=`, are left alone.

    Everything after a bare `--` is left alone too. `None` means the arguments of this process.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    for i, argument in enumerate(argv):
        if argument == "--":
            break
        if argument.startswith("--"):
            name, equals, value = argument.partition("=")
            argv[i] = name.replace("_", "-") + equals + value
    return argv


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Wide enough that most flags and their meaning share a line; says each default that is not None."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=36, width=110)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """The short and the long name; aliases and the `--no-` forms of switches stay out of the way."""
        if not action.option_strings:
            return super()._format_action_invocation(action)
        short = [name for name in action.option_strings if not name.startswith("--")][:1]
        long = [name for name in action.option_strings if name.startswith("--")][:1]
        value = "" if action.nargs == 0 else " " + self._format_args(action, action.dest.upper())
        return ", ".join(short + long) + value

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.default == []:
            return action.help
        return super()._get_help_string(action)
