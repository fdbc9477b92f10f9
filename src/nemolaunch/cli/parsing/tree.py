"""All commands as one argparse parser, for completion scripts and the manual."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator

from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.parsing.command_table import COMMANDS, module_of


def parser_of(command: str) -> Parser:
    """Return the parser of one command."""
    made: Parser = importlib.import_module(module_of(command)).parser()
    return made


def sub_commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield the name and the parser of each sub-command."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def whole() -> Parser:
    """Return `nemolaunch` with every command below it. It is not meant to parse anything."""
    top = Parser(prog="nemolaunch", description="Pretrain language models with NVIDIA NeMo 2.")
    commands = top.add_subparsers(metavar="COMMAND")
    of = commands.add_parser("help", help="show the options of a command")
    of.add_argument("command", nargs="?", choices=tuple(COMMANDS))
    for name, about in COMMANDS.items():
        own = parser_of(name)
        commands.add_parser(
            name, prog=own.prog, help=about, description=own.description, add_help=False, parents=[own]
        )
    return top
