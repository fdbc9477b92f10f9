"""The form of every answer."""

from __future__ import annotations

from dataclasses import dataclass

GOOD, NOTE, WARNING, BAD = "good", "note", "warning", "bad"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One thing looked at.

    Attributes:
        part: what it belongs to: `packages`, `gpu`, `network`, …
        level: `good`, `note` (worth knowing), `warning` (works, though not well) or `bad` (will fail).
        text: what was found.
        advice: what to type or do; empty where there is nothing to do.
    """

    part: str
    level: str
    text: str
    advice: str = ""


def good(part: str, text: str) -> Verdict:
    """Nothing to do."""
    return Verdict(part=part, level=GOOD, text=text)


def note(part: str, text: str, advice: str = "") -> Verdict:
    """Worth knowing."""
    return Verdict(part=part, level=NOTE, text=text, advice=advice)


def warning(part: str, text: str, advice: str) -> Verdict:
    """Works, though not well."""
    return Verdict(part=part, level=WARNING, text=text, advice=advice)


def bad(part: str, text: str, advice: str) -> Verdict:
    """Will fail."""
    return Verdict(part=part, level=BAD, text=text, advice=advice)
