"""Control characters in what others wrote: shown as text, so that no terminal, page or card obeys them."""

from __future__ import annotations

import re

# C0 and C1 controls but tab and newline; separators of lines; controls of the direction of text
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
MARKDOWN = re.compile(r"([\\`<>|\[\]])")


def escaped(text: str) -> str:
    r"""Return a text with its control characters as `\u001b`, which is also JSON's form of them."""
    return CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def in_markdown(text: str) -> str:
    """Return a text that is one line of plain text in Markdown, also in a table's cell."""
    return MARKDOWN.sub(r"\\\1", escaped(" ".join(text.split())))
