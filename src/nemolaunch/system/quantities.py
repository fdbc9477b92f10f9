"""Numbers as people write them."""

from __future__ import annotations

import math
from typing import Any

_SCALES = {"k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}


def number(value: Any) -> float | None:
    """A value as a float, None if it is none. YAML 1.1 reads `5e-6` as a text: take it for the number it is."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def scaled(word: str) -> int | str:
    """`1.5B` → 1500000000; a text that is no such number comes back as it is."""
    digits, letter = word.strip().replace("_", "").replace(",", ""), word.strip()[-1:].lower()
    if letter in _SCALES:
        digits = digits[:-1]
    value = number(digits)
    if value is None or not math.isfinite(value):
        return word
    return round(value * _SCALES.get(letter, 1))
