"""Tokenizers that bring code of their own, and those that transformers cannot load as they are."""

from __future__ import annotations

from collections.abc import Iterator

from nemolaunch.check.support import error, fix, no_effect, note, shown, warning
from nemolaunch.facts import Tokenizer
from nemolaunch.findings import Finding
from nemolaunch.resolve import Resolved


def rules(resolved: Resolved, tokenizer: Tokenizer) -> Iterator[Finding]:
    """Check whether a tokenizer in a folder may be loaded, and say what loading it involves."""
    trusted, where = resolved.job.model.trust_remote_code, shown("hf_model_id", tokenizer.source)
    if tokenizer.code and not trusted:
        yield error(
            "tokenizer-code",
            f"{where} has code of its own ({tokenizer.code}), which transformers would have to run, and which may do "
            "anything on this machine; read it first",
            fix(trust_remote_code=True),
            about="trust_remote_code",
        )
    elif trusted and (tokenizer.code or tokenizer.has_code):
        yield note(
            "tokenizer-code-runs",
            f"{where}: code of its folder runs ({tokenizer.code or tokenizer.has_code})",
        )
    elif trusted and not _named_checkpoints(resolved):
        yield warning(
            "tokenizer-without-code",
            f"{no_effect(['trust_remote_code'])}: {where} has no code of its own",
            fix(trust_remote_code=False),
        )
    if trusted and _named_checkpoints(resolved):
        yield note(
            "checkpoint-trusted",
            f"{' and '.join(_named_checkpoints(resolved))}: what it names is not checked, and runs when it is loaded "
            "(--trust-remote-code)",
        )
    if tokenizer.completed:
        yield note(
            "tokenizer-completed",
            f"{where}: transformers cannot load it as it is ({tokenizer.completed}); what is missing is added to the "
            "run's copy",
        )


def _named_checkpoints(resolved: Resolved) -> list[str]:
    """Return the checkpoints that the job loads, besides those of its own run."""
    resume, weights = resolved.job.checkpoint.resume, resolved.job.model.nemo_model
    return [path for path in (weights, None if resume in ("auto", "never") else resume) if path]
