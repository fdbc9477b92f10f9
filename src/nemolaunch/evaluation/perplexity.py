"""How well a model predicts a text: perplexity per token, and bits per byte, which compares tokenizers."""

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
    """Anything that predicts tokens."""

    def logits(self, ids: torch.Tensor) -> torch.Tensor:
        """Scores [batch, sequence, vocabulary] of the token after each of `ids` [batch, sequence]."""


@dataclass(frozen=True, kw_only=True)
class Perplexity:
    """Result. Every token is predicted once and counts the same.

    Attributes:
        nats: sum over tokens of -ln p(token | those before it in its window).
        num_tokens: tokens predicted; the first of a document too, from `prefix_token` alone.
        num_bytes: UTF-8 bytes of the texts.
        context_length: tokens a prediction sees at most.
        stride: tokens by which the window moves; below the context length, every token but a document's
            first ones sees at least context_length - stride tokens.
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
        return self.nats / self.num_tokens

    @property
    def perplexity(self) -> float:
        """exp of the mean over tokens; infinite where that overflows."""
        return math.exp(self.nats_per_token) if self.nats_per_token < 700 else math.inf

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.num_bytes

    def figures(self) -> dict[str, Any]:
        """Everything by name, for JSON."""
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
    """`inputs` and the token that follows each; the first `skip` predictions were made before."""

    inputs: list[int]
    targets: list[int]
    skip: int


def windows(ids: list[int], context_length: int, stride: int) -> Iterator[ScoringWindow]:
    """Windows that predict every token of `ids` but the first exactly once."""
    done, last = 0, len(ids) - 1
    for begin in range(0, last, stride):
        end = min(begin + context_length, last)
        yield ScoringWindow(ids[begin:end], ids[begin + 1 : end + 1], done - begin)
        done = end
        if end == last:
            return


def check_lengths(context_length: int, stride: int) -> None:
    """Raises UsageError unless 1 <= stride <= context length."""
    if context_length < 1:
        raise UsageError(f"--context-length {context_length}: must be at least 1")
    if not 1 <= stride <= context_length:
        raise UsageError(f"--stride {stride}: must be 1 to the context length, {context_length}")


def perplexity(
    scorer: Scorer,
    texts: Iterable[ScoredText],
    *,
    prefix_token: int | None,
    context_length: int,
    stride: int,
    batch_size: int = 1,
) -> Perplexity:
    """Score texts.

    Args:
        prefix_token: put before each document, so that its first token is predicted as well; without one,
            the first token is not counted.
        batch_size: windows scored at once; the figures do not depend on it.

    Raises:
        UsageError: a length does not make sense, or there is nothing to score.
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
        raise UsageError("--data holds no text to score")
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
    """-ln p summed over the new predictions of some windows, padded on the right where none looks."""
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
