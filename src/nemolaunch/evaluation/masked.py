"""How well a model predicts masked tokens, and what it would put in their place."""

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

# What people write for a masked token whatever the tokenizer calls it
PLACEHOLDERS = ("[MASK]", "<mask>")


@dataclass(frozen=True, kw_only=True)
class MaskedScore:
    """Result over all masked tokens, which count the same.

    Attributes:
        nats: sum of -ln p(token | its text with the masked tokens hidden).
        num_right: of `num_masked` tokens, those that were the most likely prediction.
        num_tokens: tokens of all texts, masked or not.
    """

    nats: float
    num_right: int
    num_masked: int
    num_tokens: int
    num_documents: int
    context_length: int
    masking: Masking

    @property
    def accuracy(self) -> float:
        return self.num_right / self.num_masked

    @property
    def nats_per_token(self) -> float:
        return self.nats / self.num_masked

    def figures(self) -> dict[str, Any]:
        """Everything by name, for JSON."""
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
    """How to mask texts for this model. Raises UsageError for a share that is not between 0 and 1."""
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
    """Mask texts and score the predictions. The same texts get the same masks, whatever the batch size.

    Raises:
        UsageError: there is nothing to score.
    """
    documents = tokens = masked = right = 0
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
        nats, right, masked = nats + found[0], right + found[1], masked + found[2]
    if not masked:
        raise UsageError("--data holds no text to score")
    return MaskedScore(
        nats=nats,
        num_right=right,
        num_masked=masked,
        num_tokens=tokens,
        num_documents=documents,
        context_length=context_length,
        masking=masking,
    )


def _score(
    model: MaskedModel, batch: list[tuple[int, list[int]]], masking: Masking
) -> tuple[float, int, int]:
    """Nats, tokens predicted right, tokens masked, of some numbered windows."""
    import numpy as np
    import torch

    made = [masking(np.array(ids), sample=number) for number, ids in batch]
    inputs, visible = _padded([one.inputs.tolist() for one in made])
    with torch.inference_mode():
        scores = model.scores(inputs, visible)
        nats, right, count = 0.0, 0, 0
        for row, (_, ids), one in zip(scores, batch, made, strict=True):
            places = torch.from_numpy(np.flatnonzero(one.predicted)).to(row.device)
            wanted = torch.tensor(ids, device=row.device)[places]
            logits = row[places].float()
            loss = torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
            nats += float(loss.double().sum())
            right += int((logits.argmax(-1) == wanted).sum())
            count += len(wanted)
    return nats, right, count


def _padded(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and what is no padding, both [rows, longest]."""
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
    """A token for a masked place."""

    token: str
    id: int
    probability: float


@dataclass(frozen=True, kw_only=True)
class Filled:
    """A text with masked places: candidates for each, likeliest first, and the text with the likeliest in them.

    Each place is filled by itself: its probabilities see the other places masked.
    """

    text: str
    filled: str
    places: tuple[tuple[Candidate, ...], ...]


def fill(model: MaskedModel, text: str, *, top_k: int) -> Filled:
    """What the model would put in the masked places of a text; `[MASK]` and `<mask>` mark them, or its own token.

    Raises:
        UsageError: no place is masked, or the text exceeds the model's context.
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
        raise UsageError(f"--text {text!r} has no masked place: write {' or '.join(PLACEHOLDERS)} for one")
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
    """Whether the space before a word is part of its token, so that a masked word has none before it."""
    return any(piece.startswith(("Ġ", "▁")) and len(piece) > 1 for piece in words.tokenize("of the"))
