"""`nemolaunch chat`: chat with a model in the terminal."""

from __future__ import annotations

import argparse
import sys

from nemolaunch.cli.commands.generate import add_model_flags, add_sampling_flags, sampling_from
from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.views.render import guarded
from nemolaunch.cli.views.waiting import Waiting
from nemolaunch.errors import UsageError
from nemolaunch.evaluation.chat import Conversation
from nemolaunch.evaluation.generate import for_chat

EXAMPLE = "nemolaunch chat exported/ --system 'You answer briefly.'"
HELP = "/new starts a new conversation, /exit or Ctrl-D quits, Ctrl-C interrupts a reply"


def parser() -> argparse.ArgumentParser:
    """Return the parser of `nemolaunch chat`."""
    p = Parser(
        prog="nemolaunch chat",
        description=f"Chat with a model. {HELP}.",
        example=EXAMPLE,
    )
    add_model_flags(p)
    p.add_argument("--system", metavar="TEXT", help="system prompt")
    add_sampling_flags(p, max_new_tokens=512)
    return p


@guarded
def main(argv: list[str] | None = None) -> int:
    """Chat until the user quits. Return the exit code."""
    args = parser().parse_args(argv)
    from nemolaunch.evaluation.model import load
    from nemolaunch.evaluation.source import hf_folder

    sampling = sampling_from(args)
    trusted = args.trust_remote_code
    with (
        Waiting("loading the model") as wait,
        hf_folder(args.checkpoint, say=wait.over(_note), trust_remote_code=trusted) as folder,
    ):
        lm = load(
            folder,
            dtype=args.dtype,
            tokenizer=args.tokenizer,
            trust_remote_code=trusted,
        )
    asked, sampling = sampling, for_chat(sampling, lm.context_length)
    talk = Conversation(lm, sampling, args.system)
    _note(f"{args.checkpoint} on {lm.device}; {HELP}")
    if sampling != asked:
        _note(
            f"replies end after {sampling.max_new_tokens} tokens: the model's context is {lm.context_length}"
        )
    if not talk.templated:
        _note("the tokenizer has no chat template: the model continues your text")
    while (text := _ask()) is not None:
        if text == "/new":
            talk.reset()
        elif text == "/help":
            _note(HELP)
        elif text:
            _answer(talk, text)
    return 0


def _ask() -> str | None:
    """Return the user's next line, None to quit."""
    while True:
        try:
            text = input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return None
        except KeyboardInterrupt:
            _note("\n/exit or Ctrl-D quits")
            continue
        return None if text.strip() in ("/exit", "/quit") else text


def _answer(talk: Conversation, text: str) -> None:
    try:
        if talk.reply(text, _show):
            _note("\nthe oldest turns no longer fit into the context and were dropped")
        print(flush=True)
    except KeyboardInterrupt:
        print(flush=True)
        _note("interrupted")
    except UsageError as error:
        _note(f"error: {error}")


def _show(text: str) -> None:
    print(text, end="", flush=True)


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
