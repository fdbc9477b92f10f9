"""Perplexity per token, and bits per byte, which is comparable across tokenizers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from nemolaunch.errors import UsageError
from nemolaunch.evaluation.documents import ScoredText

if TYPE_CHECKING:
    import torch

DEFAULT_CONTEXT = 2048
CHUNK_TOKENS = 1024  # rows of float32 log-probabilities held at a time


class Scorer(Protocol):
    """A model that predicts the next token."""

    def logits(self, ids: torch.Tensor) -> torch.Tensor:
        """Return logits [batch, sequence, vocabulary] for the token after each of `ids` [batch, sequence]."""


@dataclass(frozen=True, kw_only=True)
class Perplexity:
    """The result. Every token is predicted once, and all tokens have equal weight.

    Attributes:
        nats: sum over tokens of -ln p(token | preceding tokens in its window).
        num_tokens: predicted tokens, including the first of a document, which follows `prefix_token` alone.
        num_bytes: UTF-8 bytes of the texts.
        context_length: maximum number of tokens a prediction is conditioned on.
        stride: tokens by which the window moves; if it is below the context length, every token but the first ones
            of a document is conditioned on at least context_length - stride tokens.
    """

    nats: float
    num_tokens: int
    num_bytes: int
    num_documents: int
    context_length: int
    stride: int
    prefix_token: int | None

    @property
    def nats_per_token(self) -> float:
        """Mean loss per token."""
        return self.nats / self.num_tokens

    @property
    def perplexity(self) -> float:
        """The exponential of the mean loss; infinite if it overflows."""
        return math.exp(self.nats_per_token) if self.nats_per_token < 700 else math.inf

    @property
    def bits_per_byte(self) -> float:
        """Total loss in bits per UTF-8 byte of text."""
        return self.nats / math.log(2) / self.num_bytes

    def figures(self) -> dict[str, Any]:
        """Return all values by name, for JSON."""
        return {
            "perplexity": self.perplexity,
            "nats_per_token": self.nats_per_token,
            "bits_per_byte": self.bits_per_byte,
            "tokens": self.num_tokens,
            "bytes": self.num_bytes,
            "documents": self.num_documents,
            "context_length": self.context_length,
            "stride": self.stride,
            "prefix_token": self.prefix_token,
        }


@dataclass(frozen=True)
class ScoringWindow:
    """Inputs and the token after each; the first `skip` predictions belong to earlier windows."""

    inputs: list[int]
    targets: list[int]
    skip: int


def windows(ids: list[int], context_length: int, stride: int) -> Iterator[ScoringWindow]:
    """Yield windows that predict every token of `ids` but the first exactly once."""
    done, last = 0, len(ids) - 1
    for begin in range(0, last, stride):
        end = min(begin + context_length, last)
        yield ScoringWindow(ids[begin:end], ids[begin + 1 : end + 1], done - begin)
        done = end
        if end == last:
            return


def length_warning(context_length: int, max_context: int | None) -> str | None:
    """Return a warning if the context is longer than the model supports, else None."""
    if not max_context or context_length <= max_context:
        return None
    return (
        f"warning: --context-length {context_length:,} exceeds the model's context of {max_context:,} tokens"
    )


def check_lengths(context_length: int, stride: int) -> None:
    """Raise UsageError unless 1 <= stride <= context length."""
    if context_length < 1:
        raise UsageError(f"--context-length {context_length}: must be at least 1")
    if not 1 <= stride <= context_length:
        raise UsageError(f"--stride {stride}: must be between 1 and the context length, {context_length}")


def perplexity(
    scorer: Scorer,
    texts: Iterable[ScoredText],
    *,
    prefix_token: int | None,
    context_length: int,
    stride: int,
    batch_size: int = 1,
) -> Perplexity:
    """Compute the perplexity of texts.

    Args:
        prefix_token: prepended to each document, so that its first token is predicted as well; if None, the first
            token does not count.
        batch_size: windows scored at once; the result does not depend on it.

    Raises:
        UsageError: a length is out of range, or there is nothing to score.
    """
    check_lengths(context_length, stride)
    totals = {"documents": 0, "bytes": 0}

    def cut() -> Iterator[ScoringWindow]:
        for text in texts:
            ids = ([] if prefix_token is None else [prefix_token]) + text.ids
            if len(ids) > 1:
                totals["documents"] += 1
                totals["bytes"] += text.num_bytes
                yield from windows(ids, context_length, stride)

    nats, num_tokens = 0.0, 0
    stream = cut()
    while batch := list(islice(stream, batch_size)):
        nats += _score(scorer, batch)
        num_tokens += sum(len(window.targets) - window.skip for window in batch)
    if not num_tokens or not totals["bytes"]:
        raise UsageError("--data contains no text to score")
    return Perplexity(
        nats=nats,
        num_tokens=num_tokens,
        num_bytes=totals["bytes"],
        num_documents=totals["documents"],
        context_length=context_length,
        stride=stride,
        prefix_token=prefix_token,
    )


def _score(scorer: Scorer, batch: list[ScoringWindow]) -> float:
    """Return -ln p summed over the new predictions of some windows; right padding does not affect them."""
    import torch

    longest = max(len(window.inputs) for window in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    for i, window in enumerate(batch):
        ids[i, : len(window.inputs)] = torch.tensor(window.inputs)
    with torch.inference_mode():
        logits = scorer.logits(ids)
        return sum(
            _nats(logits[i, window.skip : len(window.targets)], window.targets[window.skip :])
            for i, window in enumerate(batch)
        )


def _nats(logits: torch.Tensor, targets: list[int]) -> float:
    import torch

    total = 0.0
    wanted = torch.tensor(targets, device=logits.device)
    for start in range(0, len(targets), CHUNK_TOKENS):
        part = logits[start : start + CHUNK_TOKENS].float()
        loss = torch.nn.functional.cross_entropy(part, wanted[start : start + CHUNK_TOKENS], reduction="none")
        total += float(loss.double().sum())
    return total
