"""All commands as one argparse parser, for completion scripts and the manual."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator

from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.parsing.command_table import COMMANDS


def parser_of(command: str) -> argparse.ArgumentParser:
    """The parser of one command."""
    made: argparse.ArgumentParser = importlib.import_module(COMMANDS[command][0]).parser()
    return made


def sub_commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """(name, parser) of what a command is divided into."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def whole() -> argparse.ArgumentParser:
    """`nemolaunch` with every command below it. Nothing is to be parsed with it."""
    top = Parser(prog="nemolaunch", description="Pretrain language models with NVIDIA NeMo 2.")
    commands = top.add_subparsers(metavar="COMMAND")
    for name, (_, about) in COMMANDS.items():
        own = parser_of(name)
        added = commands.add_parser(name, help=about, description=own.description, add_help=False)
        added._actions, added._option_string_actions = own._actions, own._option_string_actions
        added._action_groups, added._subparsers = own._action_groups, own._subparsers
        added.prog = own.prog
    return top
