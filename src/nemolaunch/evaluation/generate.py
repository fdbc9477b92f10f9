"""Text generation."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from nemolaunch.errors import UsageError
from nemolaunch.evaluation.model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is sampled; `temperature` 0 means greedy decoding.

    Attributes:
        top_p: sample from the most likely tokens that together have this probability.
        seed: set before every prompt, so that a continuation does not depend on other prompts.
    """

    max_new_tokens: int = 50
    temperature: float = 0.8
    top_p: float = 0.95
    seed: int = 1234

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise UsageError(f"--max-new-tokens {self.max_new_tokens}: must be at least 1")
        if self.temperature < 0:
            raise UsageError(f"--temperature {self.temperature:g}: must be 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"--top-p {self.top_p:g}: must be above 0 and at most 1")


def for_chat(sampling: Sampling, context_length: int | None) -> Sampling:
    """Return the sampling with replies of at most half of the model's context, so that a turn fits before each."""
    most = max(1, (context_length or 0) // 2)
    if context_length is None or sampling.max_new_tokens <= most:
        return sampling
    return dataclasses.replace(sampling, max_new_tokens=most)


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """The continuation of a prompt; `ended` is true if the model generated the end-of-text token."""

    prompt: str
    text: str
    num_prompt_tokens: int
    num_tokens: int
    ended: bool


def arguments(lm: LanguageModel, sampling: Sampling) -> dict[str, Any]:
    """Return the arguments of transformers' `generate`."""
    end = lm.tokenizer.eos_token_id
    pad = lm.tokenizer.pad_token_id
    chosen: dict[str, Any] = {
        "max_new_tokens": sampling.max_new_tokens,
        "do_sample": sampling.temperature > 0,
        "pad_token_id": next((token for token in (pad, end) if token is not None), 0),
    }
    if sampling.temperature > 0:
        chosen |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    else:
        chosen |= {"temperature": None, "top_p": None, "top_k": None}
    if end is not None:
        chosen["eos_token_id"] = end
    return chosen


def continue_text(lm: LanguageModel, prompt: str, sampling: Sampling) -> Continuation:
    """Continue one prompt.

    Raises:
        UsageError: the prompt has no tokens, or it and the new tokens exceed the model's context.
    """
    import torch

    ids = lm.tokenizer(prompt, return_tensors="pt")["input_ids"]
    length = int(ids.shape[1])
    if not length:
        raise UsageError("--prompt is empty, and this tokenizer adds no token at the beginning of a text")
    context = lm.context_length
    if context and length + sampling.max_new_tokens > context:
        raise UsageError(
            f"the prompt's {length} tokens and --max-new-tokens {sampling.max_new_tokens} exceed the "
            f"context of {context} tokens; use --max-new-tokens {max(1, context - length)} or less"
        )
    torch.manual_seed(sampling.seed)
    with torch.inference_mode():
        out = lm.model.generate(
            ids.to(lm.device), attention_mask=torch.ones_like(ids).to(lm.device), **arguments(lm, sampling)
        )[0]
    new = out[length:].tolist()
    return Continuation(
        prompt=prompt,
        text=str(lm.tokenizer.decode(new, skip_special_tokens=True)),
        num_prompt_tokens=length,
        num_tokens=len(new),
        ended=bool(new) and new[-1] == lm.tokenizer.eos_token_id,
    )
