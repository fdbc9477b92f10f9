"""Files with documents: how each is read, by its name, and which files a path stands for."""

from __future__ import annotations

import glob
import os
from pathlib import Path

KINDS = {
    ".jsonl": "jsonl",
    ".jsonl.gz": "gzip",
    ".json.gz": "gzip",
    ".jsonl.zst": "zstd",
    ".json.zst": "zstd",
    ".parquet": "parquet",
    ".txt": "text",
}
# In a folder a .json is more often a description than data: it is only read if it is named.
NAMED_KINDS = {**KINDS, ".json": "jsonl"}


def kind_of(path: Path, kinds: dict[str, str]) -> str | None:
    """Return how to read a file, by the longest known ending; None if there is none."""
    name = path.name.lower()
    endings = [ending for ending in kinds if name.endswith(ending)]
    return kinds[max(endings, key=len)] if endings else None


def in_folder(folder: Path) -> list[str]:
    """Return all data files below a folder, sorted, without hidden files and Megatron's own descriptions."""
    return sorted(
        str(p)
        for p in folder.rglob("*")
        if p.is_file() and not _is_ignored(p.relative_to(folder)) and kind_of(p, KINDS)
    )


def _is_ignored(path: Path) -> bool:
    """Return whether a path is hidden or in Megatron's cache beside `.bin/.idx` files, which has .txt files."""
    return any(part.startswith(".") or part.endswith("Dataset_indices") for part in path.parts)


def matching(pattern: str) -> list[str]:
    """Return the files that a glob matches, sorted."""
    return sorted(p for p in glob.glob(pattern, recursive=True) if os.path.isfile(p))


def expand(path: str) -> list[str]:
    """Return the files that a file, a folder or a glob stands for; none if nothing exists."""
    where = Path(path).expanduser()
    if where.is_dir():
        return in_folder(where)
    return [str(where)] if where.is_file() else matching(str(where))
