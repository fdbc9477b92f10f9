"""JSON that others wrote: refused, with a `ValueError`, if it is larger or deeper than any real file of its kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MOST_BYTES = 1 << 28  # the largest tokenizer.json have 40 MB; Python needs about ten times a file's size


def read_json(path: Path, most_bytes: int = MOST_BYTES) -> Any:
    """Return the content of a JSON file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON, not UTF-8, larger than `most_bytes`, or nested too deeply.
    """
    with open(path, "rb") as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise ValueError(f"it is larger than {most_bytes:,} bytes")
    return parse_json(data.decode("utf-8"))


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text. Raises `ValueError` if it is not JSON, or nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
