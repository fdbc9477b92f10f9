"""The result of each check of the doctor."""

from __future__ import annotations

from dataclasses import dataclass

GOOD, NOTE, WARNING, BAD = "good", "note", "warning", "bad"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The result of one check.

    Attributes:
        part: area it belongs to: `packages`, `gpu`, `network`, …
        level: `good`, `note` (worth knowing), `warning` (works, but not well) or `bad` (will fail).
        text: what was found.
        advice: what to type or do; empty if there is nothing to do.
    """

    part: str
    level: str
    text: str
    advice: str = ""


def good(part: str, text: str) -> Verdict:
    """Create the result of a check that passed."""
    return Verdict(part=part, level=GOOD, text=text)


def note(part: str, text: str, advice: str = "") -> Verdict:
    """Create a result that is worth knowing."""
    return Verdict(part=part, level=NOTE, text=text, advice=advice)


def warning(part: str, text: str, advice: str) -> Verdict:
    """Create the result of something that works, but not well."""
    return Verdict(part=part, level=WARNING, text=text, advice=advice)


def bad(part: str, text: str, advice: str) -> Verdict:
    """Create the result of something that will fail."""
    return Verdict(part=part, level=BAD, text=text, advice=advice)
