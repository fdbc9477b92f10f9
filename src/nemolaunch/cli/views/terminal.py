"""What others wrote, such as names, logs and data, on a terminal: control characters are shown, never obeyed."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from nemolaunch.system.control_characters import escaped


class EscapingStream:
    """A text stream that writes control characters escaped; in all else, the stream that it was made from."""

    def __init__(self, stream: TextIO) -> None:
        self.plain = stream

    def write(self, text: str) -> int:
        """Write a text; a carriage return at its beginning is a progress bar's own."""
        begin = "\r" if text.startswith("\r") else ""
        self.plain.write(begin + escaped(text[len(begin) :]))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __iter__(self) -> Iterator[str]:
        return iter(self.plain)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)


@contextlib.contextmanager
def escaping() -> Iterator[None]:
    """Escape what is written to standard output and standard error."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_escaping(stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _escaping(stream: Any) -> Any:
    if stream is None:  # closed by the shell: `nemolaunch status >&-`
        return open(os.devnull, "w", encoding="utf-8")
    return stream if isinstance(stream, EscapingStream) else EscapingStream(stream)
