"""What the fork server's rank runs to score texts with NeMo's own model, without any export."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any


def score(checkpoint: str, data: str, documents: int, context_length: int) -> dict[str, Any]:
    """Figures of `nemolaunch eval ppl`, by the Megatron model in `checkpoint`, in float32."""
    import torch

    from nemolaunch.evaluation import documents as texts
    from nemolaunch.evaluation.model import LanguageModel, load_tokenizer
    from nemolaunch.evaluation.perplexity import perplexity
    from nemolaunch.nemo2.logits import load

    megatron = load(Path(checkpoint)).module.float().eval()

    class Megatron:
        def logits(self, ids: torch.Tensor) -> torch.Tensor:
            positions = torch.arange(ids.shape[1]).expand_as(ids)
            scores: torch.Tensor = megatron(ids, positions, attention_mask=None)
            return scores

    tokenizer = load_tokenizer(Path(checkpoint) / "context" / "tokenizer")
    read = texts.documents(data, tokenizer)
    return perplexity(
        Megatron(),
        itertools.islice(read, documents),
        prefix_token=LanguageModel(None, tokenizer).prefix_token,
        context_length=context_length,
        stride=context_length,
    ).figures()
