"""Evaluate a model."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nemolaunch.evaluation.documents import ScoredText
    from nemolaunch.evaluation.perplexity import Perplexity

log = logging.getLogger("nemolaunch")


@dataclass(frozen=True)
class Evaluation:
    """The perplexity of a text under a model, and how it was computed.

    Attributes:
        score: the figures; `score.perplexity` and `score.bits_per_byte` among them.
        dtype: of the model, such as `float32`.
        device: of the model, such as `cpu`.
        seconds: time that scoring took, without loading the model.
    """

    score: Perplexity
    dtype: str
    device: str
    seconds: float

    @property
    def perplexity(self) -> float:
        """Perplexity per token."""
        return self.score.perplexity

    @property
    def bits_per_byte(self) -> float:
        """Bits per UTF-8 byte, which is comparable between models with different tokenizers."""
        return self.score.bits_per_byte


def evaluate(
    checkpoint: str | Path,
    *,
    data: str | Path,
    text_key: str = "text",
    split: str | None = None,
    limit: int | None = None,
    context_length: int | None = None,
    stride: int | None = None,
    batch_size: int = 1,
    dtype: str = "auto",
    tokenizer: str | Path | None = None,
    trust_remote_code: bool = False,
    tell: Callable[[str], None] = log.info,
    watch: Callable[[Iterable[ScoredText]], Iterable[ScoredText]] = lambda texts: texts,
) -> Evaluation:
    """Compute the perplexity and the bits per byte of a text under a model. Every token is counted once.

    Args:
        checkpoint: a Hugging Face folder, a checkpoint of NeMo 2 or Bridge, or a run folder for its newest one.
        data: prefix of .bin/.idx, JSON Lines, parquet or text files, or a dataset `NAME[:CONFIG]`.
        text_key: key or column of the text.
        split: split of a dataset.
        limit: maximum number of documents.
        context_length: maximum number of tokens a prediction sees; by default the model's, up to 2048.
        stride: number of tokens by which the window moves; by default the context length.
        dtype: `auto` (as saved; float32 on a CPU), `float32`, `bfloat16` or `float16`.
        trust_remote_code: run code in the folders of the model and the tokenizer.
        watch: wraps the texts as they are scored, for a progress display.

    Raises:
        UsageError: the checkpoint or data does not exist, or the lengths are inconsistent.
    """
    from nemolaunch.evaluation.documents import documents
    from nemolaunch.evaluation.model import load
    from nemolaunch.evaluation.perplexity import DEFAULT_CONTEXT, check_lengths, length_warning, perplexity
    from nemolaunch.evaluation.source import hf_folder

    if context_length is not None:
        check_lengths(context_length, stride or context_length)
    with hf_folder(Path(checkpoint), say=tell, trust_remote_code=trust_remote_code) as folder:
        words = None if tokenizer is None else Path(tokenizer)
        model = load(folder, dtype=dtype, tokenizer=words, trust_remote_code=trust_remote_code)
    context = context_length or min(model.context_length or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
    if warning := length_warning(context, model.context_length):
        tell(warning)
    texts = documents(str(data), model.tokenizer, text_key=text_key, split=split)
    began = time.monotonic()
    score = perplexity(
        model,
        watch(islice(texts, limit) if limit else texts),
        prefix_token=model.prefix_token,
        context_length=context,
        stride=stride or context,
        batch_size=batch_size,
    )
    return Evaluation(score, model.dtype_name, str(model.device), time.monotonic() - began)
