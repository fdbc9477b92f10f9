"""The shares of `--split`: training, validation and test documents of each file, in their order."""

from __future__ import annotations

import math


def shares(split: str) -> tuple[float, float, float]:
    """Return the three shares as fractions of all documents. A malformed split counts as all training."""
    try:
        parts = [float(part) for part in split.split(",")]
    except ValueError:
        parts = [1.0]
    parts = [*parts, 0.0, 0.0][:3]
    if not math.isfinite(sum(parts)) or min(parts) < 0:
        parts = [1.0, 0.0, 0.0]
    total = sum(parts) or 1.0
    return parts[0] / total, parts[1] / total, parts[2] / total


def grown_share(before: str, now: str) -> bool:
    """Return whether training reaches further into the documents than before.

    Megatron cuts the documents of a file in their order: training first, then validation, then test
    (`parse_and_normalize_split` and `convert_split_vector_to_split_matrix` in blended_megatron_dataset_config.py).
    """
    return shares(now)[0] > shares(before)[0]
