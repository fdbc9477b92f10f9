"""Generate docs/commands.md, the reference of all commands, from their parsers.

python -m nemolaunch.cli.manual > docs/commands.md
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator

from nemolaunch.cli.main import EXIT_CODES, GROUPS
from nemolaunch.cli.parsing.arguments import HelpFormatter, Parser
from nemolaunch.cli.parsing.flags import add_job_flags
from nemolaunch.cli.parsing.tree import parser_of, sub_commands
from nemolaunch.job import PARTS

HEAD = """\
# Commands

Generated from the commands' parsers by `make docs`; `nemolaunch COMMAND --help` shows the same. Flags can be written
`--like-this` or `--like_this`. Results are printed to standard output, messages and errors to standard error; `--json`
prints results for programs. Colours are turned off if the output is not a terminal or `NO_COLOR` is set. Secrets are
read from the environment (`HF_TOKEN`, `WANDB_API_KEY`) and never shown.
"""


def manual() -> str:
    """Return the whole document."""
    os.environ["COLUMNS"] = "110"
    lines = [HEAD, "| exit code | meaning |", "|---|---|"]
    lines += [f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    lines += ["", "Shell completion for commands, flags and values:", ""]
    lines += _example(parser_of("completion"))
    for group, commands in GROUPS.items():
        lines += ["", f"## {group[0].upper()}{group[1:]}"]
        for name in commands:
            lines += _command(parser_of(name))
    lines += ["", "## Flags of a job", ""]
    lines += ["The keys of a `--config` file are the same names, with `_` or `-`."]
    job = Parser(prog="job", add_help=False)
    add_job_flags(job)
    for part in job._action_groups:
        if part.title in PARTS:
            lines += ["", f"### {part.title}", "", f"{part.description}", "", *_table(part._group_actions)]
    return "\n".join(lines) + "\n"


def _command(parser: argparse.ArgumentParser) -> Iterator[str]:
    yield from ("", f"### {parser.prog}", "", str(parser.description), "", *_example(parser))
    own = [a for group in parser._action_groups if group.title not in PARTS for a in group._group_actions]
    table = list(_table(own))
    if len(table) > 2:
        yield from ("", *table)
    if any(group.title in PARTS for group in parser._action_groups):
        yield from ("", "It also takes the [flags of a job](#flags-of-a-job).")
    for _, sub in sub_commands(parser):
        yield from _command(sub)


def _example(parser: argparse.ArgumentParser) -> list[str]:
    examples = getattr(parser, "examples", [])
    return ["```bash", *examples, "```"] if examples else []


def _table(actions: Iterable[argparse.Action]) -> Iterator[str]:
    formatter = HelpFormatter("")
    yield "| | |"
    yield "|---|---|"
    for action in actions:
        if isinstance(action, argparse._SubParsersAction | argparse._HelpAction):
            continue
        name = formatter._format_action_invocation(action)
        text = formatter._expand_help(action) if action.help else ""
        needed = " (required)" if action.required and action.option_strings else ""
        yield f"| `{_cell(name)}` | {_cell(text)}{needed} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    sys.stdout.write(manual())
