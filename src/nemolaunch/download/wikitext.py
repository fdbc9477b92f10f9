"""Plain text from wikitext.

mwparserfromhell does the parsing. Content that it would keep, but that reads badly outside its page, is
removed first: tables, references, galleries, embedded files, categories, links to other languages, and empty
sections.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

FILE, CATEGORY = 6, 14  # namespace numbers, the same in every wiki
ENGLISH = {FILE: ("file", "image"), CATEGORY: ("category",)}
DROPPED_TAGS = {
    "table", "ref", "references", "gallery", "timeline", "math", "chem", "ce", "score", "hiero", "graph", "imagemap",
    "mapframe", "maplink", "templatestyles", "categorytree", "inputbox", "syntaxhighlight", "source",
}  # fmt: skip
LANGUAGE_LINK = re.compile(r"[a-z]{2,3}(-[a-z]+)*:", re.ASCII)
SWITCH = re.compile(r"__[^\W\d_]+__")
EMPTY_BRACKETS = re.compile(r" ?\(\s*[,;:、，；]*\s*\)|（\s*[,;:、，；]*\s*）")
VARIANTS = re.compile(r"-\{([^{}]*)\}-")
# Flags of rules that display nothing: set a title, hide, remove, describe.
SILENT_FLAGS = set("THD-")
SPACES = re.compile(r"[ \t\xa0]+")
HEADING = "\x02"


@dataclass(frozen=True)
class Namespaces:
    """Prefixes of links that are not text, in lower case: files and categories in the wiki's language."""

    dropped: frozenset[str]

    @staticmethod
    def of(names: dict[int, str]) -> Namespaces:
        """Return them for the names of a wiki's namespaces by number."""
        found = {name for number in ENGLISH for name in ENGLISH[number]}
        found |= {names[number].lower() for number in ENGLISH if names.get(number)}
        return Namespaces(frozenset(found))


def plain(wikitext: str, namespaces: Namespaces) -> str:
    """Return the text of a page; empty if there is none."""
    import mwparserfromhell
    from mwparserfromhell.nodes import Heading

    code = mwparserfromhell.parse(VARIANTS.sub(_variant, wikitext))
    _prune(code, namespaces)
    pieces = []
    for node in code.nodes:
        if isinstance(node, Heading):
            title = " ".join(str(node.title.strip_code(collapse=True)).split())
            pieces.append(f"\n{HEADING}{node.level}{title}\n")
        else:
            text = node.__strip__(normalize=True, collapse=True, keep_template_params=False)
            pieces.append("" if text is None else str(text))
    return _tidy("".join(pieces))


def _prune(code: Any, namespaces: Namespaces) -> None:
    """Remove nodes at every depth. The library's own `remove` searches the whole page for each of them."""
    code.nodes = [
        node for node in code.nodes if type(node).__name__ != "Template" and not _dropped(node, namespaces)
    ]
    for node in code.nodes:
        for child in node.__children__():
            _prune(child, namespaces)


def _dropped(node: Any, namespaces: Namespaces) -> bool:
    kind = type(node).__name__
    if kind == "Tag":
        return str(node.tag).strip().lower() in DROPPED_TAGS
    if kind != "Wikilink":
        return False
    prefix, colon, _ = str(node.title).strip().partition(":")
    if not colon:
        return False
    if prefix.strip().replace("_", " ").lower() in namespaces.dropped:
        return True
    return node.text is None and LANGUAGE_LINK.match(f"{prefix}:") is not None


def _variant(match: re.Match[str]) -> str:
    """Return the first spelling in `-{…}-`, which lists those of a word in the variants of a language."""
    flags, bar, rules = match[1].rpartition("|")
    if bar and SILENT_FLAGS & set(flags.replace(" ", "")):
        return ""
    first = next((rule for rule in rules.split(";") if rule.strip()), "")
    _, arrow, after = first.rpartition("=>")
    name, colon, word = (after if arrow else first).partition(":")
    return word.strip() if colon and re.fullmatch(r"\s*[a-z]{2,3}(-[a-z]+)*\s*", name) else rules


def _tidy(text: str) -> str:
    """Remove empty brackets, switches, repeated blank lines, and headings of empty sections."""
    lines: list[str] = []
    for line in _without_empty_sections(EMPTY_BRACKETS.sub("", SWITCH.sub("", text)).splitlines()):
        if line or (lines and lines[-1]):
            lines.append(line)
    return "\n".join(lines).strip()


def _without_empty_sections(lines: list[str]) -> Iterator[str]:
    """Yield lines, without headings that are followed by one of the same or a higher level or by nothing."""
    waiting: list[tuple[int, str]] = []
    for line in lines:
        line = SPACES.sub(" ", line).strip()
        if line.startswith(HEADING):
            level = int(line[1])
            waiting = [(above, title) for above, title in waiting if above < level]
            waiting.append((level, line[2:].strip()))
            continue
        if line and waiting:
            for _, title in waiting:
                yield ""
                yield title
            yield ""
            waiting = []
        yield line
