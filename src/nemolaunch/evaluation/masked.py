"""Evaluation of masked language models: accuracy and loss of masked tokens, and filling of masks."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from nemolaunch.data.masking import Masking
from nemolaunch.errors import UsageError
from nemolaunch.evaluation.documents import ScoredText
from nemolaunch.evaluation.model import MaskedModel

if TYPE_CHECKING:
    import torch

# accepted in prompts for every tokenizer, whatever its own mask token
PLACEHOLDERS = ("[MASK]", "<mask>")


@dataclass(frozen=True, kw_only=True)
class MaskedScore:
    """The result over all masked tokens, equally weighted.

    Attributes:
        nats: sum of -ln p(token | its text with the masked tokens hidden).
        num_correct: masked tokens that were the most likely prediction.
        num_tokens: tokens of all texts, masked or not.
    """

    nats: float
    num_correct: int
    num_masked: int
    num_tokens: int
    num_documents: int
    context_length: int
    masking: Masking

    @property
    def accuracy(self) -> float:
        """Share of masked tokens predicted correctly."""
        return self.num_correct / self.num_masked

    @property
    def nats_per_token(self) -> float:
        """Mean loss per masked token."""
        return self.nats / self.num_masked

    def figures(self) -> dict[str, Any]:
        """Return all values by name, for JSON."""
        return {
            "masked_accuracy": self.accuracy,
            "masked_loss": self.nats_per_token,
            "masked_perplexity": math.exp(self.nats_per_token) if self.nats_per_token < 700 else math.inf,
            "masked_tokens": self.num_masked,
            "tokens": self.num_tokens,
            "documents": self.num_documents,
            "context_length": self.context_length,
            "mlm_probability": self.masking.probability,
            "mlm_replacement": self.masking.replacement,
            "seed": self.masking.seed,
        }


def masking_for(model: MaskedModel, *, probability: float, replacement: str, seed: int) -> Masking:
    """Return the masking for a model.

    Raises:
        UsageError: `probability` is not between 0 and 1.
    """
    if not 0 < probability < 1:
        raise UsageError(f"--mlm-probability {probability:g}: must be above 0 and below 1")
    words = model.tokenizer
    ends = (
        words.bos_token_id,
        words.eos_token_id,
        words.pad_token_id,
        words.cls_token_id,
        words.sep_token_id,
    )
    return Masking(
        probability=probability,
        replacement=replacement,
        mask_token=model.mask_token,
        vocab_size=len(words),
        protected=tuple(sorted({end for end in ends if end is not None})),
        seed=seed,
    )


def score(
    model: MaskedModel,
    texts: Iterable[ScoredText],
    masking: Masking,
    *,
    context_length: int,
    batch_size: int = 1,
) -> MaskedScore:
    """Mask texts and score the predictions. The masks do not depend on the batch size.

    Raises:
        UsageError: there is nothing to score.
    """
    documents = tokens = masked = correct = 0
    nats = 0.0

    def windows() -> Iterator[list[int]]:
        nonlocal documents, tokens
        for text in texts:
            documents += bool(text.ids)
            tokens += len(text.ids)
            for start in range(0, len(text.ids), context_length):
                yield text.ids[start : start + context_length]

    stream = enumerate(windows())
    while batch := list(islice(stream, batch_size)):
        found = _score(model, batch, masking)
        nats, correct, masked = nats + found[0], correct + found[1], masked + found[2]
    if not masked:
        raise UsageError("--data contains no text to score")
    return MaskedScore(
        nats=nats,
        num_correct=correct,
        num_masked=masked,
        num_tokens=tokens,
        num_documents=documents,
        context_length=context_length,
        masking=masking,
    )


def _score(
    model: MaskedModel, batch: list[tuple[int, list[int]]], masking: Masking
) -> tuple[float, int, int]:
    """Return nats, correctly predicted tokens and masked tokens of some numbered windows."""
    import numpy as np
    import torch

    made = [masking(np.array(ids), sample=number) for number, ids in batch]
    inputs, visible = _padded([one.inputs.tolist() for one in made])
    with torch.inference_mode():
        scores = model.scores(inputs, visible)
        nats, correct, count = 0.0, 0, 0
        for row, (_, ids), one in zip(scores, batch, made, strict=True):
            places = torch.from_numpy(np.flatnonzero(one.predicted)).to(row.device)
            wanted = torch.tensor(ids, device=row.device)[places]
            logits = row[places].float()
            loss = torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
            nats += float(loss.double().sum())
            correct += int((logits.argmax(-1) == wanted).sum())
            count += len(wanted)
    return nats, correct, count


def _padded(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return padded ids and the attention mask, both [rows, longest]."""
    import torch

    longest = max(map(len, rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    visible = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        visible[i, : len(row)] = 1
    return ids, visible


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A candidate token for a masked position."""

    token: str
    id: int
    probability: float


@dataclass(frozen=True, kw_only=True)
class Filled:
    """A text with its masked positions filled.

    Each position is predicted independently, with the other positions masked.

    Attributes:
        filled: the text with the most likely candidates.
        places: candidates for each position, most likely first.
    """

    text: str
    filled: str
    places: tuple[tuple[Candidate, ...], ...]


def fill(model: MaskedModel, text: str, *, top_k: int) -> Filled:
    """Fill the masked positions of a text: `[MASK]`, `<mask>` or the tokenizer's own mask token.

    Raises:
        UsageError: no position is masked, or the text exceeds the model's context.
    """
    import torch

    words, own = model.tokenizer, str(model.tokenizer.mask_token)
    marked = text
    for placeholder in PLACEHOLDERS:
        marked = marked.replace(placeholder, own)
    if _spaces_begin_tokens(words):
        marked = re.sub(r" +(?=" + re.escape(own) + ")", "", marked)
    ids = words(marked, return_tensors="pt")["input_ids"]
    places = torch.nonzero(ids[0] == model.mask_token).flatten().tolist()
    if not places:
        raise UsageError(f"--text {text!r} has no masked position: mark one with {' or '.join(PLACEHOLDERS)}")
    context = model.context_length
    if context and ids.shape[1] > context:
        raise UsageError(f"the text's {ids.shape[1]} tokens exceed the context of {context}")
    with torch.inference_mode():
        shares = model.scores(ids, torch.ones_like(ids))[0, places].float().softmax(-1).cpu()
    best = shares[:, : len(words)].topk(min(top_k, len(words)))
    found = tuple(
        tuple(
            Candidate(token=str(words.decode([token])), id=token, probability=share)
            for token, share in zip(row.tolist(), values.tolist(), strict=True)
        )
        for row, values in zip(best.indices, best.values, strict=True)
    )
    ids[0, places] = best.indices[:, 0]
    return Filled(text=text, filled=str(words.decode(ids[0], skip_special_tokens=True)), places=found)


def _spaces_begin_tokens(words: Any) -> bool:
    """Return whether a space is part of the following token, so that none may precede a mask."""
    return any(piece.startswith(("Ġ", "▁")) and len(piece) > 1 for piece in words.tokenize("of the"))
