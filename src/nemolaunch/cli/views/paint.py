"""Colour and wrapping on a terminal. Pipes and files get plain lines, as long as they are."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TextIO

from nemolaunch.system.control_characters import escaped

# Parameters of ANSI's "select graphic rendition"
STYLES = {"error": "1;31", "warning": "33", "note": "36", "good": "1;32", "title": "1"}
NARROWEST = 40  # less is not a terminal that anybody reads

Part = tuple[str, str]  # a style of STYLES, or "", and a text


def is_terminal(stream: TextIO) -> bool:
    """Return whether somebody looks at what is written to a stream."""
    return bool(stream.isatty())


def has_colour(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether a stream shows colours, and the user wants them (https://no-color.org)."""
    return is_terminal(stream) and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def write_parts(parts: Iterable[Part], stream: TextIO | None = None, *, indent: int = 4) -> None:
    """Write one line of styled parts; on a terminal, wrapped at its width with a hanging indent.

    Control characters in the parts are escaped: they may come from anybody.
    """
    out: Any = sys.stdout if stream is None else stream
    texts = [(style, escaped(text)) for style, text in parts]
    if not is_terminal(out):
        out.write("".join(text for _, text in texts) + "\n")
        return
    width = max(NARROWEST, shutil.get_terminal_size((80, 24)).columns)
    colour = has_colour(out)
    target = getattr(out, "plain", out)  # below the stream that would escape our own colours too
    for line in _wrapped(texts, width, indent):
        target.write("".join(_painted(style, text) if colour else text for style, text in line) + "\n")


def _painted(style: str, text: str) -> str:
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if style and text.strip() else text


def _wrapped(parts: list[Part], width: int, indent: int) -> Iterator[list[Part]]:
    """Yield the lines of a text in several styles, each with the parts of it."""
    whole = "".join(text for _, text in parts)
    styles = [style for style, text in parts for _ in text]
    at = 0
    for begin, words in _lines(whole, width, indent):
        at = whole.index(words, at)
        line = [("", " " * begin)]
        for style, letters in itertools.groupby(range(at, at + len(words)), styles.__getitem__):
            line.append((style, "".join(whole[i] for i in letters)))
        at += len(words)
        yield line


def _lines(text: str, width: int, indent: int) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text: the width of the indentation before each, and its words."""
    for paragraph in text.split("\n"):
        if len(paragraph) <= width:
            yield 0, paragraph
            continue
        lines = textwrap.wrap(
            paragraph,
            width,
            subsequent_indent=" " * indent,
            break_on_hyphens=False,
            break_long_words=False,  # paths and commands stay whole, to be copied
        )
        yield 0, lines[0]
        yield from ((indent, line[indent:]) for line in lines[1:])
