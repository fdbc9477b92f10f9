"""Sizes that no model has, refused before anything counts layers or allocates memory for them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

COUNTS = re.compile(r"(layers?|experts?|blocks?)$")  # things that are gone through one by one
SIZES = re.compile(r"(size|heads|dim|rank|groups|channels)$")
MOST_COUNTED, MOST_SIZE = 100_000, 2**31 - 1


def absurd_size(fields: Mapping[str, Any]) -> str | None:
    """Return which of a model's sizes is beyond any model's, as a clause; None if none is."""
    for name, value in fields.items():
        most = MOST_COUNTED if COUNTS.search(str(name)) else MOST_SIZE if SIZES.search(str(name)) else None
        if most is not None and type(value) in (int, float) and abs(value) > most:
            return f"{name} is {value:,}; no model has more than {most:,}"
    return None
