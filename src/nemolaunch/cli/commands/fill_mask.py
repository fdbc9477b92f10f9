"""`nemolaunch fill-mask`: fill the masked positions of a text."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import TYPE_CHECKING

from nemolaunch.cli.commands.generate import add_model_flags
from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.views.render import guarded
from nemolaunch.cli.views.waiting import Waiting

if TYPE_CHECKING:
    from nemolaunch.evaluation.masked import Filled

EXAMPLE = "nemolaunch fill-mask runs/masked --text 'The capital of France is [MASK].' --top-k 3"


def parser() -> argparse.ArgumentParser:
    """Return the parser of `nemolaunch fill-mask`."""
    p = Parser(
        prog="nemolaunch fill-mask",
        description="Fill the [MASK] positions of a text with a masked language model.",
        example=EXAMPLE,
    )
    add_model_flags(p)
    p.add_argument(
        "--text",
        action="append",
        required=True,
        metavar="TEXT",
        help="text with [MASK], <mask> or the tokenizer's mask token, or - for stdin; repeatable",
    )
    p.add_argument("--top-k", type=int, default=5, metavar="N", help="number of candidates per position")
    p.add_argument("--json", action="store_true", help="print one JSON object per text")
    return p


@guarded
def main(argv: list[str] | None = None) -> int:
    """Fill the masks and print the result. Return the exit code."""
    args = parser().parse_args(argv)
    from nemolaunch.errors import UsageError
    from nemolaunch.evaluation.masked import fill
    from nemolaunch.evaluation.model import load_masked
    from nemolaunch.evaluation.source import hf_folder

    if args.top_k < 1:
        raise UsageError(f"--top-k {args.top_k}: must be at least 1")
    texts = [sys.stdin.read() if text == "-" else text for text in args.text]
    trusted = args.trust_remote_code
    with (
        Waiting("loading the model") as wait,
        hf_folder(args.checkpoint, say=wait.over(_note), trust_remote_code=trusted) as folder,
    ):
        model = load_masked(
            folder,
            dtype=args.dtype,
            tokenizer=args.tokenizer,
            trust_remote_code=trusted,
        )
    for i, text in enumerate(texts):
        found = fill(model, text, top_k=args.top_k)
        if args.json:
            print(json.dumps(dataclasses.asdict(found), ensure_ascii=False), flush=True)
        else:
            print("\n" * bool(i) + "\n".join(lines(found)), flush=True)
    return 0


def lines(found: Filled) -> list[str]:
    """Format the filled text and the candidates for each position."""
    made = [found.filled]
    for number, candidates in enumerate(found.places, 1):
        made.append(f"position {number}" if len(found.places) > 1 else "")
        made += [f"  {one.probability:6.1%}  {one.token!r}" for one in candidates]
    return [line for line in made if line]


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
