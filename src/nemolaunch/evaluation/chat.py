"""A conversation with a model: history, chat templates and streamed replies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nemolaunch.errors import UsageError
from nemolaunch.evaluation.generate import Sampling, arguments
from nemolaunch.evaluation.model import LanguageModel


@dataclass
class Conversation:
    """A conversation and the model that replies.

    With a chat template, turns are marked the way the model saw them in training. Without one, all turns form a
    single text that the model continues.
    """

    lm: LanguageModel
    sampling: Sampling
    system: str | None = None
    turns: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        import torch

        torch.manual_seed(self.sampling.seed)

    @property
    def templated(self) -> bool:
        """Whether the tokenizer has a chat template."""
        return bool(self.lm.tokenizer.chat_template)

    def reset(self) -> None:
        """Clear the history; the system prompt stays."""
        self.turns.clear()

    def reply(self, text: str, show: Callable[[str], None]) -> bool:
        """Reply, passing the text to `show` piece by piece. Return whether earlier turns were dropped.

        After an interruption (KeyboardInterrupt, re-raised) the partial reply stays in the history.

        Raises:
            UsageError: the text alone exceeds the model's context.
        """
        import torch

        self.turns.append({"role": "user", "content": text})
        try:
            ids, dropped = self._fitting()
        except UsageError:
            self.turns.pop()
            raise
        stream = _streamer(self.lm.tokenizer, show)
        try:
            with torch.inference_mode():
                self.lm.model.generate(
                    ids.to(self.lm.device),
                    attention_mask=torch.ones_like(ids).to(self.lm.device),
                    streamer=stream,
                    **arguments(self.lm, self.sampling),
                )
        finally:
            self.turns.append({"role": "assistant", "content": stream.written})
        return dropped

    def _fitting(self) -> tuple[Any, bool]:
        """Return the ids [1, n] of the latest turns that leave room for a reply, and whether turns were dropped."""
        context = self.lm.context_length
        room = context - self.sampling.max_new_tokens if context else None
        dropped = False
        while True:
            ids = self._ids()
            if room is None or ids.shape[1] <= room:
                return ids, dropped
            if len(self.turns) < 2:
                raise UsageError(
                    f"this turn has {ids.shape[1]} tokens, but the model's context of {context} minus "
                    f"--max-new-tokens {self.sampling.max_new_tokens} leaves room for {max(0, room)}"
                )
            del self.turns[: 2 if len(self.turns) > 2 else 1]
            dropped = True

    def _ids(self) -> Any:
        if not self.templated:
            text = (self.system or "") + "".join(turn["content"] for turn in self.turns)
            return self.lm.tokenizer(text, return_tensors="pt")["input_ids"]
        messages = [{"role": "system", "content": self.system}] if self.system else []
        return self.lm.tokenizer.apply_chat_template(
            messages + self.turns, add_generation_prompt=True, return_tensors="pt"
        )


def _streamer(tokenizer: Any, show: Callable[[str], None]) -> Any:
    """Return a transformers streamer that also keeps the text as `written`."""
    from transformers import TextStreamer

    class Streamer(TextStreamer):
        written = ""

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            self.written += text
            show(text)

    return Streamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
