"""`nemolaunch inspect`: what data or a checkpoint is. One module a kind."""

from __future__ import annotations

import argparse

from nemolaunch.cli.commands import inspect_checkpoint, inspect_data
from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.views.render import guarded


def parser() -> argparse.ArgumentParser:
    """Return the parser with the flags of the command and of what it can inspect."""
    p = Parser(
        prog="nemolaunch inspect",
        example="nemolaunch inspect data data/preprocessed/sample_text_document",
        description="Show and check tokenised data or a checkpoint; compare two checkpoints.",
    )
    kinds = p.add_subparsers(dest="kind", required=True, metavar="KIND")
    for module in (inspect_data, inspect_checkpoint):
        module.add(kinds)
    return p


@guarded
def main(argv: list[str] | None = None) -> int:
    """Inspect and print. Returns the exit code."""
    args = parser().parse_args(argv)
    return int(args.run(args))
