"""`nemolaunch eval mlm`: accuracy and loss of masked tokens."""

from __future__ import annotations

import argparse
import time
from itertools import islice
from typing import Any

from nemolaunch.cli.commands.eval_ppl import (
    add_result_flags,
    add_source_flags,
    batch_size,
    make_result,
    note,
    print_result,
    with_progress,
)
from nemolaunch.cli.commands.generate import add_model_flags
from nemolaunch.cli.views.waiting import Waiting
from nemolaunch.job import spec_of

EXAMPLE = "nemolaunch eval mlm runs/masked --data valid.jsonl --batch-size 8"


def add(kinds: Any) -> None:
    """Add the sub-command."""
    p = kinds.add_parser(
        "mlm",
        help="accuracy and loss of masked tokens of a text",
        description="Mask tokens of a text and compute the accuracy and loss of their predictions. The masks depend "
        "only on the text, its position and the seed, so models with the same tokenizer are comparable.",
        example=EXAMPLE,
    )
    add_model_flags(p)
    add_source_flags(p, required=True)
    add_masking_flags(p)
    p.add_argument("--seed", type=int, default=1234, metavar="N", help="seed of the masks")
    add_result_flags(p)
    p.set_defaults(run=run)


def add_masking_flags(p: argparse.ArgumentParser) -> None:
    """Add the masking flags, with the same defaults as in training."""
    share, policy = spec_of("mlm_probability"), spec_of("mlm_replacement")
    p.add_argument(
        share.flag, type=float, default=share.default, metavar="X", help="fraction of tokens to mask"
    )
    p.add_argument(
        policy.flag, choices=policy.choices, default=policy.default, help="how to replace masked tokens"
    )


def run(args: argparse.Namespace) -> int:
    """Score masked tokens and print the result. Return the exit code."""
    from nemolaunch.evaluation.documents import documents
    from nemolaunch.evaluation.masked import masking_for, score
    from nemolaunch.evaluation.model import load_masked
    from nemolaunch.evaluation.perplexity import DEFAULT_CONTEXT, check_lengths, length_warning
    from nemolaunch.evaluation.source import hf_folder

    rows = batch_size(args.batch_size)
    if args.context_length is not None:
        check_lengths(args.context_length, args.context_length)
    trusted = args.trust_remote_code
    with (
        Waiting("loading the model") as wait,
        hf_folder(args.checkpoint, say=wait.over(note), trust_remote_code=trusted) as folder,
    ):
        model = load_masked(
            folder,
            dtype=args.dtype,
            tokenizer=args.tokenizer,
            trust_remote_code=trusted,
        )
    masking = masking_for(
        model, probability=args.mlm_probability, replacement=args.mlm_replacement, seed=args.seed
    )
    context = args.context_length or min(model.context_length or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
    if warning := length_warning(context, model.context_length):
        note(warning)
    texts = documents(args.data, model.tokenizer, text_key=args.text_key, split=args.split)
    began = time.monotonic()
    found = score(
        model,
        with_progress(islice(texts, args.limit) if args.limit else texts),
        masking,
        context_length=context,
        batch_size=rows,
    )
    seconds = time.monotonic() - began
    result = make_result(args, model.dtype_name, str(model.device), found.figures(), seconds)
    lines = (
        f"masked accuracy  {found.accuracy:.2%}\nmasked loss      {found.nats_per_token:.4f} nats per token\n"
        f"{found.num_masked:,} masked of {found.num_tokens:,} tokens in {found.num_documents:,} documents; "
        f"context length {found.context_length}, {masking.replacement}, seed {masking.seed}, {result['dtype']} "
        f"on {result['device']}, {found.num_tokens / max(seconds, 1e-9):,.0f} tokens/s"
    )
    print_result(args, result, lines)
    return 0
