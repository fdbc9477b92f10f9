"""`nemolaunch eval ppl`: perplexity and bits per byte of a text."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemolaunch.cli.commands.generate import add_model_flags
from nemolaunch.cli.views.waiting import Waiting
from nemolaunch.system.quantities import counted

if TYPE_CHECKING:
    from nemolaunch.evaluation.documents import ScoredText

EXAMPLE = "nemolaunch eval ppl exported/ --data valid.jsonl --context-length 1024 --stride 512"


def add(kinds: Any) -> None:
    """Add the sub-command."""
    p = kinds.add_parser(
        "ppl",
        help="perplexity and bits per byte of a text",
        description="Compute the perplexity per token and the bits per byte of a text. Every token is predicted once.",
        example=EXAMPLE,
    )
    add_model_flags(p)
    add_text_flags(p, required=True)
    add_result_flags(p)
    p.set_defaults(run=run)


def add_text_flags(p: argparse.ArgumentParser, *, required: bool) -> None:
    """Add the flags that select the text and the windows it is split into."""
    add_source_flags(p, required=required)
    p.add_argument(
        "--stride", type=int, metavar="N", help="step of the sliding window (default: the context length)"
    )


def add_source_flags(p: argparse.ArgumentParser, *, required: bool) -> None:
    """Add the flags that select the text, the context length and the batch size."""
    add = p.add_argument
    data = "PREFIX of .bin/.idx; JSONL, parquet or text; or a dataset NAME[:CONFIG]"
    add("--data", required=required, help=data)
    add("--text-key", default="text", metavar="KEY", help="JSON key or column of the text")
    add("--split", metavar="NAME", help="split of a dataset")
    add("--limit", type=int, metavar="N", help="use only the first N documents")
    add(
        "--context-length",
        type=int,
        metavar="N",
        help="context length in tokens (default: the model's, up to 2048)",
    )
    add("--batch-size", default="1", metavar="N", help="sequences per batch")


def add_result_flags(p: argparse.ArgumentParser) -> None:
    """Add the output flags."""
    p.add_argument("--json", action="store_true", help="print JSON")
    p.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="also write the result as JSON to this file"
    )


def run(args: argparse.Namespace) -> int:
    """Score the text and print the result. Return the exit code."""
    from nemolaunch.api.evaluate import evaluate

    with Waiting("loading the model") as wait:
        done = evaluate(
            args.checkpoint,
            data=args.data,
            text_key=args.text_key,
            split=args.split,
            limit=args.limit,
            context_length=args.context_length,
            stride=args.stride,
            batch_size=batch_size(args.batch_size),
            dtype=args.dtype,
            tokenizer=args.tokenizer,
            trust_remote_code=args.trust_remote_code,
            tell=wait.over(note),
            watch=wait.before(with_progress),
        )
    found = done.score
    result = make_result(args, done.dtype, done.device, found.figures(), done.seconds)
    lines = (
        f"perplexity     {found.perplexity:.4f}\nbits per byte  {found.bits_per_byte:.4f}\n"
        f"{found.num_tokens:,} tokens, {found.num_bytes:,} bytes in {counted(found.num_documents, 'document')}; "
        f"context length {found.context_length}, stride {found.stride}, {done.dtype} on "
        f"{done.device}, {found.num_tokens / max(done.seconds, 1e-9):,.0f} tokens/s"
    )
    print_result(args, result, lines)
    return 0


def with_progress(texts: Iterable[ScoredText]) -> Iterator[ScoredText]:
    """Yield the texts, showing the progress of scoring."""
    from nemolaunch.cli.views.progress import Bar

    done = documents = 0
    with Bar(None, "scoring") as bar:
        for text in texts:
            yield text
            done, documents = done + text.num_bytes, documents + 1
            bar.show(done, f"{documents:,} documents")


def batch_size(text: str) -> int:
    """Parse --batch-size."""
    from nemolaunch.errors import UsageError

    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"--batch-size {text}: must be a positive integer")
    return int(text)


def make_result(
    args: argparse.Namespace, dtype: str, device: str, figures: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """Return the result to print and save: the figures and the conditions of the evaluation."""
    return {
        "checkpoint": str(args.checkpoint),
        "data": args.data,
        **figures,
        "dtype": dtype,
        "device": device,
        "seconds": round(seconds, 2),
    }


def print_result(args: argparse.Namespace, result: dict[str, Any], lines: str) -> None:
    """Print a result, with --json as JSON, and write it to the file of --output."""
    from nemolaunch.system.atomic_files import write_json

    print(json.dumps(result, indent=1, ensure_ascii=False) if args.json else lines, flush=True)
    if args.output:
        write_json(args.output, result)
        note(str(args.output))


def note(text: str) -> None:
    """Print a remark to stderr, apart from the result."""
    print(text, file=sys.stderr, flush=True)
