"""What a changed split means for documents already seen."""

from __future__ import annotations


def shares(split: str) -> list[float] | None:
    """Return the shares of `--split` as fractions of all documents; None if it is not a valid split."""
    try:
        parts = [float(part) for part in split.split(",")]
    except ValueError:
        return None
    total = sum(parts)
    return [part / total for part in parts] if total > 0 else None


def grown_share(before: str, now: str) -> bool:
    """Return whether training reaches further into the documents than before.

    Megatron cuts the documents of a file in their order: training first, then validation, then test
    (`parse_and_normalize_split` and `convert_split_vector_to_split_matrix` in blended_megatron_dataset_config.py).
    """
    old, new = shares(before), shares(now)
    return old is not None and new is not None and new[0] > old[0]
