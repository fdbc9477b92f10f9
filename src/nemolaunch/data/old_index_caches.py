"""Index caches of earlier contents of the data, which nothing reads any more.

They are the folders whose record (`nemolaunch.data.index_cache`) names other contents of the same files, and caches in
Megatron's own places, which do not tell contents apart: `PREFIX/cache/`, or files directly in `--index-mapping-dir`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from nemolaunch.data import index_cache
from nemolaunch.data.data_digest import digest_now

MEGATRONS = "cache"  # `GPTDataset`: PREFIX/cache/GPTDataset_indices
DESCRIPTION = re.compile(r"[0-9a-f]{32}-\w+(?:-\w+)?-description\.txt")
DESCRIBED_PATH = re.compile(r'"dataset_path": ("(?:[^"\\]|\\.)*")')
READ_BYTES = 1 << 16  # of a description; that of a blend lists every dataset
MOST_DESCRIPTIONS = 500


@dataclass(frozen=True, kw_only=True)
class OldCache:
    """An index cache that is not read any more. `pattern`: the path, or a pattern, that `rm -r` removes."""

    pattern: str
    num_bytes: int


def old_caches(folder: str, digests: Mapping[str, str]) -> tuple[OldCache, ...]:
    """Return the old caches of data files.

    Args:
        folder: where their caches are: `--index-mapping-dir`, or `cache/` next to the data.
        digests: prefix of each file → digest of its content.
    """
    found = [*_of_other_contents(folder, digests), *_of_megatron(digests), *_unkeyed(folder, digests)]
    return tuple(OldCache(pattern=path, num_bytes=size) for path, size in found)


def _of_other_contents(folder: str, digests: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    for name in _names(folder):
        if not index_cache.NAME.fullmatch(name):
            continue
        path = os.path.join(folder, name)
        files = index_cache.recorded(Path(path)) or {}
        if any(digests.get(prefix, digest) != digest for prefix, digest in files.items()):
            yield path, _size(path, _names(path))


def _of_megatron(prefixes: Iterable[str]) -> Iterator[tuple[str, int]]:
    for prefix in prefixes:
        folder = os.path.join(prefix, MEGATRONS)
        for path in (os.path.join(folder, name) for name in _names(folder) if name.endswith("_indices")):
            yield path, _size(path, _names(path))


def _unkeyed(folder: str, prefixes: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Yield the caches that earlier versions wrote directly into `--index-mapping-dir`, one per dataset and split."""
    names = _names(folder)
    own = set(prefixes)
    for name in [n for n in names if DESCRIPTION.fullmatch(n)][:MOST_DESCRIPTIONS]:
        if own & _described(os.path.join(folder, name)):
            stem = name.removesuffix("description.txt")
            yield os.path.join(folder, stem) + "*", _size(folder, [n for n in names if n.startswith(stem)])


def _described(path: str) -> set[str]:
    """Return the prefixes in a dataset's description."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(READ_BYTES)
    except OSError:
        return set()
    return {json.loads(word) for word in DESCRIBED_PATH.findall(text)}


def remove_old_caches(prefix: str) -> None:
    """Remove the caches next to a data file that has been rewritten, except those for its content now."""
    prefix = os.path.abspath(prefix)
    beside = os.path.join(os.path.dirname(prefix), index_cache.BESIDE)
    if not any(map(os.path.isdir, (prefix, beside))):
        return  # the digest of a million files takes seconds
    for cache in old_caches(beside, {prefix: digest_now(prefix) or ""}):
        if not cache.pattern.endswith("*"):  # those are in a folder that somebody named
            shutil.rmtree(cache.pattern, ignore_errors=True)
    for folder in (os.path.join(prefix, MEGATRONS), prefix, beside):
        with contextlib.suppress(OSError):  # it does not exist, or holds something else
            os.rmdir(folder)


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (OSError, ValueError):  # it does not exist, or no folder can have this name
        return []


def _size(folder: str, names: Iterable[str]) -> int:
    total = 0
    for name in names:
        try:
            total += os.stat(os.path.join(folder, name)).st_size
        except OSError:
            continue
    return total
