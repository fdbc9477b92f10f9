"""`nemolaunch eval`: evaluate a model. Each kind of evaluation has its own module."""

from __future__ import annotations

import argparse

from nemolaunch.cli.commands import eval_lm, eval_mlm, eval_ppl, eval_watch
from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.views.render import guarded


def parser() -> argparse.ArgumentParser:
    """Return the parser of `nemolaunch eval` and its sub-commands."""
    p = Parser(
        prog="nemolaunch eval",
        example="nemolaunch eval ppl runs/pretraining --data valid.jsonl",
        description="Evaluate a model: perplexity, masked-token accuracy or benchmarks.",
    )
    kinds = p.add_subparsers(dest="kind", required=True, metavar="KIND")
    for module in (eval_ppl, eval_mlm, eval_lm, eval_watch):
        module.add(kinds)
    return p


@guarded
def main(argv: list[str] | None = None) -> int:
    """Evaluate and print the result. Return the exit code."""
    args = parser().parse_args(argv)
    return int(args.run(args))
