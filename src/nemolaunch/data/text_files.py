"""Files that hold documents: how each is read, by its name, and which of them a path stands for."""

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
# In a folder a .json is more often a description than data: it is read only where it is named.
NAMED_KINDS = {**KINDS, ".json": "jsonl"}


def kind_of(path: Path, kinds: dict[str, str]) -> str | None:
    """How to read a file, by the longest ending that is known."""
    name = path.name.lower()
    endings = [ending for ending in kinds if name.endswith(ending)]
    return kinds[max(endings, key=len)] if endings else None


def in_folder(folder: Path) -> list[str]:
    """All data files below a folder in the order of their paths, without hidden ones and Megatron's own notes."""
    return sorted(
        str(p)
        for p in folder.rglob("*")
        if p.is_file() and not _is_passed_over(p.relative_to(folder)) and kind_of(p, KINDS)
    )


def _is_passed_over(path: Path) -> bool:
    """Hidden, or in the cache that Megatron makes beside `.bin/.idx` files, whose descriptions end in .txt."""
    return any(part.startswith(".") or part.endswith("Dataset_indices") for part in path.parts)


def matching(pattern: str) -> list[str]:
    """Files that a glob matches, in the order of their paths."""
    return sorted(p for p in glob.glob(pattern, recursive=True) if os.path.isfile(p))


def expand(path: str) -> list[str]:
    """Files that a file, a folder or a glob stands for; none where there is nothing."""
    where = Path(path).expanduser()
    if where.is_dir():
        return in_folder(where)
    return [str(where)] if where.is_file() else matching(str(where))
