"""Suggestions for a path that does not exist."""

from __future__ import annotations

import difflib
import itertools
import os
from collections.abc import Callable

MAX_NAMES = 10_000  # of a folder that are compared
CUTOFF = 0.6  # of difflib's similarity


def nearest(path: str, good: Callable[[str], bool] = os.path.exists) -> str | None:
    """Return the most similar path that is `good`, in the same form; None if none is similar enough."""
    try:
        return _nearest(path.rstrip(os.sep), good)
    except (OSError, ValueError):
        return None


def _nearest(path: str, good: Callable[[str], bool]) -> str | None:
    head, name = os.path.split(path)
    if not name:
        return None
    if head and not os.path.isdir(os.path.expanduser(head)):
        found = _nearest(head, _is_folder)
        if found is None:
            return None
        head = found
        if good(os.path.join(head, name)):
            return os.path.join(head, name)
    with os.scandir(os.path.expanduser(head) or ".") as entries:
        names = {entry.name for entry in itertools.islice(entries, MAX_NAMES)}
    stems = {n[:-4] for n in names if n.endswith((".bin", ".idx"))}
    for alike in difflib.get_close_matches(name, sorted(names | stems), n=3, cutoff=CUTOFF):
        candidate = os.path.join(head, alike)
        if good(candidate):
            return candidate
    return None


def _is_folder(path: str) -> bool:
    return os.path.isdir(os.path.expanduser(path))


def missing_part(path: str) -> str | None:
    """Return the first folder above a path that does not exist; None if only the path itself is missing."""
    absolute = os.path.abspath(os.path.expanduser(path))
    missing = None
    parent = os.path.dirname(absolute)
    while not os.path.lexists(parent):
        missing, parent = parent, os.path.dirname(parent)
    return missing
