"""Masked language modelling: which models can, and the token that stands for a masked one."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from nemolaunch.check.families import family
from nemolaunch.check.support import each, error, fix, flag, shown, warning, without
from nemolaunch.facts import Tokenizer
from nemolaunch.findings import Finding, Fix
from nemolaunch.resolve import Resolved
from nemolaunch.tokenizer.vocabulary import MASK, spare

MASKING = ("mlm_probability", "mlm_replacement", "mlm_span_length", "mask_token")
MOST_SUGGESTED = 2


def rules(resolved: Resolved) -> Iterator[Finding]:
    """The objective by model, and what belongs to it."""
    job = resolved.job.objective
    masked = job.objective == "mlm"
    if not masked and resolved.model.architecture.kind == "bert":
        yield error(
            "objective-unsupported",
            f"{shown('objective', job.objective)}: {resolved.model.name} is an encoder, which sees both sides",
            fix(objective="mlm"),
        )
    elif not masked:
        taken_back = without(resolved, *MASKING)
        if taken_back.changes:
            yield warning(
                "masking-without-mlm",
                f"{', '.join(map(flag, taken_back.changes))}: nothing is masked with "
                f"{shown('objective', job.objective)}",
                fix(objective="mlm"),
                taken_back,
            )
    elif reason := family(resolved).causal_only:
        yield error(
            "objective-unsupported",
            f"{shown('objective', 'mlm')}: {resolved.model.name} cannot attend to both sides, {reason}",
            fix(objective="clm"),
        )
    else:
        yield from _mask_token(resolved)


def _mask_token(resolved: Resolved) -> Iterator[Finding]:
    """Whether the tokenizer has the token, and nothing else is meant by it."""
    tokenizer, token = resolved.facts.tokenizer, resolved.job.objective.mask_token
    if tokenizer is None or tokenizer.words is None:
        return  # reported elsewhere, or seen only once the tokenizer is loaded
    if token is None:
        yield error(
            "mask-token-missing",
            f"the tokenizer {tokenizer.source} names no mask token",
            *_suggested(tokenizer),
            about="mask_token",
        )
    elif token not in tokenizer.words:
        yield error(
            "mask-token-unknown",
            f"{shown('mask_token', token)} is not among the {len(tokenizer.words)} tokens of {tokenizer.source}",
            *_suggested(tokenizer, near=token),
            about="mask_token",
        )
    elif parts := [role for role, taken in tokenizer.roles.items() if taken == token and role != MASK]:
        yield error(
            "mask-token-in-use",
            f"{shown('mask_token', token)} is the {' and the '.join(parts)} of {tokenizer.source}",
            *_suggested(tokenizer),
            about="mask_token",
        )


def _suggested(tokenizer: Tokenizer, near: str | None = None) -> tuple[Fix, ...]:
    """The tokenizer's own mask token, else reserved ones, nearest first."""
    own, words = tokenizer.roles.get(MASK), tokenizer.words or frozenset()
    if own is not None and own in words:
        return each("mask_token", [own])
    free = spare(words, tokenizer.roles.values())
    close = difflib.get_close_matches(near, free, n=MOST_SUGGESTED) if near else []
    return each("mask_token", (close or free)[:MOST_SUGGESTED])
