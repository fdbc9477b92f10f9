"""`nemolaunch generate`: generate text from prompts."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.parsing.trust_flag import add_trust_flag
from nemolaunch.cli.views.render import guarded
from nemolaunch.cli.views.waiting import Waiting
from nemolaunch.evaluation.generate import Sampling
from nemolaunch.evaluation.model import DTYPES

EXAMPLE = "nemolaunch generate exported/ --prompt 'It was' --prompt '春眠不覺曉' --max-new-tokens 50"


def parser() -> argparse.ArgumentParser:
    """Return the parser of `nemolaunch generate`."""
    p = Parser(
        prog="nemolaunch generate",
        description="Generate continuations of one or several prompts.",
        example=EXAMPLE,
    )
    add_model_flags(p)
    p.add_argument(
        "--prompt",
        action="append",
        required=True,
        metavar="TEXT",
        help="prompt, or - for stdin; repeatable",
    )
    add_sampling_flags(p)
    p.add_argument("--json", action="store_true", help="print one JSON object per prompt")
    return p


def add_model_flags(p: argparse.ArgumentParser) -> None:
    """Add the flags that select the model and how to load it."""
    p.add_argument(
        "checkpoint",
        type=Path,
        metavar="CKPT",
        help="Hugging Face folder, checkpoint of NeMo 2 or Megatron-Bridge, or run folder",
    )
    p.add_argument(
        "--tokenizer",
        "--hf-tokenizer",
        type=Path,
        metavar="DIR",
        help="tokenizer folder (default: the checkpoint's)",
    )
    add_trust_flag(p)
    p.add_argument("--dtype", choices=DTYPES, default="auto", help="auto: as saved; float32 on the CPU")


def add_sampling_flags(p: argparse.ArgumentParser, max_new_tokens: int = 50) -> None:
    """Add the sampling flags."""
    add = p.add_argument
    add(
        "--max-new-tokens",
        type=int,
        default=max_new_tokens,
        metavar="N",
        help="maximum number of tokens to generate",
    )
    add(
        "--temperature",
        type=float,
        default=0.8,
        metavar="T",
        help="sampling temperature; 0 is the same as --greedy",
    )
    add(
        "--top-p",
        type=float,
        default=0.95,
        metavar="P",
        help="sample from the most likely tokens with this total probability",
    )
    add("--greedy", action="store_true", help="greedy decoding")
    add("--seed", type=int, default=1234, metavar="N", help="random seed")


def sampling_from(args: argparse.Namespace) -> Sampling:
    """Return the values of the sampling flags. Raise UsageError if one is out of range."""
    return Sampling(
        max_new_tokens=args.max_new_tokens,
        temperature=0.0 if args.greedy else args.temperature,
        top_p=args.top_p,
        seed=args.seed,
    )


@guarded
def main(argv: list[str] | None = None) -> int:
    """Generate and print the continuations. Return the exit code."""
    args = parser().parse_args(argv)
    from nemolaunch.evaluation.generate import continue_text
    from nemolaunch.evaluation.model import load
    from nemolaunch.evaluation.source import hf_folder

    sampling = sampling_from(args)
    prompts = [sys.stdin.read() if prompt == "-" else prompt for prompt in args.prompt]
    trusted = args.trust_remote_code
    with (
        Waiting("loading the model") as wait,
        hf_folder(args.checkpoint, say=wait.over(_note), trust_remote_code=trusted) as folder,
    ):
        lm = load(
            folder,
            dtype=args.dtype,
            tokenizer=args.tokenizer,
            trust_remote_code=trusted,
        )
    for i, prompt in enumerate(prompts):
        with Waiting("generating"):
            made = continue_text(lm, prompt, sampling)
        if args.json:
            print(json.dumps(dataclasses.asdict(made), ensure_ascii=False), flush=True)
        else:
            print("\n" * bool(i) + made.prompt + made.text, flush=True)
    return 0


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
