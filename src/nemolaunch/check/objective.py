"""Masked language modelling: models that support it, and the mask token."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from nemolaunch.check.families import limits_of
from nemolaunch.check.support import each, error, fix, flag, no_effect, shown, warning, without
from nemolaunch.facts import Tokenizer
from nemolaunch.findings import Finding, Fix
from nemolaunch.resolve import Resolved
from nemolaunch.tokenizer.vocabulary import MASK, spare

MASKING = ("mlm_probability", "mlm_replacement", "mlm_span_length", "mask_token")
MOST_SUGGESTED = 2


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Check the objective against the model, and the masking settings."""
    job = resolved.job.objective
    masked = job.objective == "mlm"
    if not masked and resolved.model.architecture.kind == "bert":
        yield error(
            "objective-unsupported",
            f"{shown('objective', job.objective)} is not possible: {resolved.model.name} is an encoder, which attends "
            "to both sides",
            fix(objective="mlm"),
        )
    elif not masked:
        dropped = without(resolved, *MASKING)
        if dropped.changes:
            yield warning(
                "masking-without-mlm",
                f"{no_effect(dropped.changes)} with {shown('objective', job.objective)}, which masks no tokens",
                fix(objective="mlm"),
                dropped,
            )
    elif reason := limits_of(resolved).causal_only:
        yield error(
            "objective-unsupported",
            f"{shown('objective', 'mlm')} is not possible: {resolved.model.name} cannot attend to both sides because "
            f"{reason}",
            fix(objective="clm"),
        )
    else:
        yield from _mask_token(resolved)


def _mask_token(resolved: Resolved) -> Iterator[Finding]:
    """Check that the tokenizer has the mask token, and that the token has no other meaning."""
    tokenizer, token = resolved.facts.tokenizer, resolved.job.objective.mask_token
    if tokenizer is None or tokenizer.words is None:
        return  # reported elsewhere, or only known once the tokenizer is loaded
    if token is None:
        yield error(
            "mask-token-missing",
            f"the tokenizer {tokenizer.source} defines no mask token, so {flag('mask_token')} is required",
            *_suggested(tokenizer),
            about="mask_token",
        )
    elif token not in tokenizer.words:
        yield error(
            "mask-token-unknown",
            f"{shown('mask_token', token)} is not one of the {len(tokenizer.words)} tokens of {tokenizer.source}",
            *_suggested(tokenizer, near=token),
            about="mask_token",
        )
    elif parts := [role for role, taken in tokenizer.roles.items() if taken == token and role != MASK]:
        yield error(
            "mask-token-in-use",
            f"{shown('mask_token', token)} is already the {' and the '.join(parts)} of {tokenizer.source}",
            *_suggested(tokenizer),
            about="mask_token",
        )


def _suggested(tokenizer: Tokenizer, near: str | None = None) -> tuple[Fix, ...]:
    """Suggest the tokenizer's own mask token, else reserved tokens, nearest first."""
    own, words = tokenizer.roles.get(MASK), tokenizer.words or frozenset()
    if own is not None and own in words:
        return each("mask_token", [own])
    free = spare(words, tokenizer.roles.values())
    close = difflib.get_close_matches(near, free, n=MOST_SUGGESTED) if near else []
    return each("mask_token", (close or free)[:MOST_SUGGESTED])
