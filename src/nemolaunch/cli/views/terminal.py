"""What others wrote, such as names, logs and data, on a terminal: control characters are shown, never obeyed."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO

# C0 and C1 controls but tab and newline; separators of lines; controls of the direction of text
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def escaped(text: str) -> str:
    r"""Return a text with its control characters as `\u001b`, which is also JSON's form of them."""
    return CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


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
