"""`nemolaunch eval ppl`: perplexity and bits per byte of a text."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemolaunch.cli.commands.generate import add_model_flags

if TYPE_CHECKING:
    from nemolaunch.evaluation.documents import ScoredText

EXAMPLE = "nemolaunch eval ppl exported/ --data valid.jsonl --context-length 1024 --stride 512"


def add(kinds: Any) -> None:
    """Add the sub-command."""
    p = kinds.add_parser(
        "ppl",
        help="perplexity and bits per byte of a text",
        description="Perplexity per token and bits per byte. Every token counts once and the same.",
        example=EXAMPLE,
    )
    add_model_flags(p)
    add_text_flags(p, required=True)
    add_result_flags(p)
    p.set_defaults(run=run)


def add_text_flags(p: argparse.ArgumentParser, *, required: bool) -> None:
    """Which text, and how it is cut into windows that may overlap."""
    add_source_flags(p, required=required)
    p.add_argument(
        "--stride", type=int, metavar="N", help="tokens the window moves by (default: the context length)"
    )


def add_source_flags(p: argparse.ArgumentParser, *, required: bool) -> None:
    """Which text, and how much of it is seen at once."""
    add = p.add_argument
    data = "PREFIX of .bin/.idx, JSONL, parquet or text, or a data set NAME[:CONFIG]"
    add("--data", required=required, help=data)
    add("--text-key", default="text", metavar="KEY", help="key or column of the text")
    add("--split", metavar="NAME", help="split of a data set")
    add("--limit", type=int, metavar="N", help="only the first N documents")
    add(
        "--context-length",
        type=int,
        metavar="N",
        help="tokens a prediction sees (default: the model's, up to 2048)",
    )
    add("--batch-size", default="1", metavar="N", help="sequences at once")


def add_result_flags(p: argparse.ArgumentParser) -> None:
    """Where results go."""
    p.add_argument("--json", action="store_true", help="print JSON")
    p.add_argument("-o", "--output", type=Path, metavar="FILE", help="also write the result there, as JSON")


def run(args: argparse.Namespace) -> int:
    """Load, score, print. Returns the exit code."""
    from nemolaunch.evaluation.documents import documents
    from nemolaunch.evaluation.model import load
    from nemolaunch.evaluation.perplexity import DEFAULT_CONTEXT, check_lengths, perplexity
    from nemolaunch.evaluation.source import hf_folder

    rows = batch_size(args.batch_size)
    if args.context_length is not None:
        check_lengths(args.context_length, args.stride or args.context_length)
    with hf_folder(args.checkpoint, say=tell) as folder:
        lm = load(folder, dtype=args.dtype, tokenizer=args.tokenizer)
    context = args.context_length or min(lm.context_length or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
    warn_of_length(context, lm.context_length)
    texts = documents(args.data, lm.tokenizer, text_key=args.text_key, split=args.split)
    began = time.monotonic()
    found = perplexity(
        lm,
        with_progress(islice(texts, args.limit) if args.limit else texts),
        prefix_token=lm.prefix_token,
        context_length=context,
        stride=args.stride or context,
        batch_size=rows,
    )
    seconds = time.monotonic() - began
    result = result_of(args, lm, found.figures(), seconds)
    lines = (
        f"perplexity     {found.perplexity:.4f}\nbits per byte  {found.bits_per_byte:.4f}\n"
        f"over {found.num_tokens:,} tokens, {found.num_bytes:,} bytes in {found.num_documents:,} document(s); "
        f"context length {found.context_length}, stride {found.stride}, {result['dtype']} on "
        f"{result['device']}, {found.num_tokens / max(seconds, 1e-9):,.0f} tokens/s"
    )
    give(args, result, lines)
    return 0


def warn_of_length(asked: int, made_for: int | None) -> None:
    """Say that a model has not seen windows so long, where that is so."""
    if made_for and asked > made_for:
        tell(f"warning: --context-length {asked:,}: the model was made for {made_for:,} tokens")


def with_progress(texts: Iterable[ScoredText]) -> Iterator[ScoredText]:
    """The same texts, with a display of how much has been scored."""
    from nemolaunch.cli.views.progress import Bar

    done = documents = 0
    with Bar(None, "scoring") as bar:
        for text in texts:
            yield text
            done, documents = done + text.num_bytes, documents + 1
            bar.show(done, f"{documents:,} documents")


def batch_size(text: str) -> int:
    """Sequences at once, as it is given on the command line."""
    from nemolaunch.errors import UsageError

    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"--batch-size {text}: must be a number above 0")
    return int(text)


def result_of(
    args: argparse.Namespace, model: Any, figures: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """Figures with what they are of, as results are printed and kept."""
    return {
        "checkpoint": str(args.checkpoint),
        "data": args.data,
        **figures,
        "dtype": str(model.model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "seconds": round(seconds, 2),
    }


def give(args: argparse.Namespace, result: dict[str, Any], lines: str) -> None:
    """Print a result, as JSON if asked, and keep it in a file if asked."""
    from nemolaunch.system.atomic_files import write_json

    print(json.dumps(result, indent=1, ensure_ascii=False) if args.json else lines, flush=True)
    if args.output:
        write_json(args.output, result)
        tell(str(args.output))


def tell(text: str) -> None:
    """A remark, beside the result."""
    print(text, file=sys.stderr, flush=True)
