"""The folder of Megatron's index cache: named by what the index depends on, so that an outdated one is never read.

Megatron names the files of its cache by a hash of the dataset's description: paths, number of samples, split, seed.
The content is not part of it, so the index of earlier data of the same name would be read for the new. Each content
therefore has a folder of its own, with a record of what it was built for.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from nemolaunch.system.json_files import read_json

BESIDE = "cache"  # name of the folder next to the data, unless --index-mapping-dir is given
RECORD = "nemolaunch.json"
NAME = re.compile(r"[0-9a-f]{16}")


def identity(digests: Iterable[str], *, split: str, seed: int, seq_length: int) -> str:
    """Return the name of the folder for the index of data files with these digests, in their order."""
    described = json.dumps([list(digests), split, seed, seq_length])
    return hashlib.sha256(described.encode()).hexdigest()[:16]


def record(digests: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the content of a folder's record, given the digest of each data file that its index is for."""
    return {"files": dict(digests)}


def recorded(folder: Path) -> dict[str, str] | None:
    """Return prefix → digest of the data files that a folder's index was built for; None without a valid record."""
    try:
        found = read_json(folder / RECORD)["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, dict) else None
