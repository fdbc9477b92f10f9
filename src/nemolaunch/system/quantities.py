"""Numbers as people write them."""

from __future__ import annotations

import math
from typing import Any

_SCALES = {"k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}


def number(value: Any) -> float | None:
    """Return a value as a float, None if it is not a number. Also `5e-6`, which YAML 1.1 reads as text."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def scaled(word: str) -> int | str:
    """Convert `1.5B` to 1500000000; return any other text unchanged."""
    digits, letter = word.strip().replace("_", "").replace(",", ""), word.strip()[-1:].lower()
    if letter in _SCALES:
        digits = digits[:-1]
    value = number(digits)
    if value is None or not math.isfinite(value):
        return word
    return round(value * _SCALES.get(letter, 1))


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun: `1 error`, `1,200 processes`. The plural of most nouns is `one` with an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
