"""`nemolaunch eval`: figures for a model. One module a kind of evaluation."""

from __future__ import annotations

import argparse

from nemolaunch.cli.commands import eval_lm, eval_mlm, eval_ppl, eval_watch
from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.views.render import guarded


def parser() -> argparse.ArgumentParser:
    """Flags of the command and of what it can evaluate."""
    p = Parser(
        prog="nemolaunch eval",
        example="nemolaunch eval ppl runs/pretraining --data valid.jsonl",
        description="Measure what a model can do.",
    )
    kinds = p.add_subparsers(dest="kind", required=True, metavar="KIND")
    for module in (eval_ppl, eval_mlm, eval_lm, eval_watch):
        module.add(kinds)
    return p


@guarded
def main(argv: list[str] | None = None) -> int:
    """Evaluate and print. Returns the exit code."""
    args = parser().parse_args(argv)
    return int(args.run(args))
