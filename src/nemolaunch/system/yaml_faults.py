"""What is wrong with a YAML file, in one line."""

from __future__ import annotations


def fault(error: Exception) -> str:
    """Return the reason that a parser gave for refusing a text, and the line and column where it noticed."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    what = getattr(error, "problem", None) or "unexpected text"
    begun = getattr(error, "context", None)
    return f"line {mark.line + 1}, column {mark.column + 1}: {what}" + (f", {begun}" if begun else "")
