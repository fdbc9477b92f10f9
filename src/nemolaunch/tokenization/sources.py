"""Which files are read, in which order, and which share of them belongs to a task."""

from __future__ import annotations

import fnmatch
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.data.text_files import KINDS, NAMED_KINDS, in_folder, kind_of, matching
from nemolaunch.errors import UsageError


@dataclass(frozen=True)
class InputFile:
    """One input file. `size` in bytes on disk, `modified` in ns since the epoch."""

    path: str
    kind: str
    size: int
    modified: int


def split_by_hash(share: float) -> dict[str, Any]:
    """Return the fields of a request that send this share of documents, by their hash, to validation."""
    if not 0 < share < 1:
        raise UsageError(f"--validation-share {share}: must be between 0 and 1")
    return {"validation": share, "split": {"rule": "document hash", "validation_share": share}}


def find(inputs: list[str], kind: str = "auto") -> list[InputFile]:
    """Return the files that files, folders and globs name; folders are read recursively, sorted by path.

    `kind` "text" selects .txt files, "jsonl" and "parquet" those; "auto" selects text only if there is
    nothing else. Raises UsageError if an input is missing, has no data, or is of an unknown kind.
    """
    found: dict[str, InputFile] = {}
    for given in inputs:
        for source in _find_one(given, kind):
            found.setdefault(os.path.realpath(source.path), source)
    return list(found.values())


def _find_one(given: str, kind: str) -> list[InputFile]:
    path = Path(given).expanduser()
    if path.is_dir():
        sources = _wanted([_source(p, KINDS) for p in in_folder(path)], kind)
        if not sources:
            raise UsageError(f"--input-dir {given} has no data: none of its files ends in {', '.join(KINDS)}")
        return sources
    if path.is_file():
        return [_source(str(path), NAMED_KINDS)]
    paths = matching(str(path))
    if not paths:
        raise UsageError(
            f"--input-dir {given}: there is no such file or folder, and as a glob it matches nothing"
        )
    return _wanted([_source(p, NAMED_KINDS) for p in paths], kind)


def _wanted(sources: list[InputFile], kind: str) -> list[InputFile]:
    if kind == "auto":
        other = [s for s in sources if s.kind != "text"]
        return other or sources
    kinds = {"jsonl": ("jsonl", "gzip", "zstd")}.get(kind, (kind,))
    return [s for s in sources if s.kind in kinds]


def _source(path: str, kinds: dict[str, str]) -> InputFile:
    kind = kind_of(Path(path), kinds)
    if kind is None:
        raise UsageError(f"{path}: unknown kind of file; names have to end in {', '.join(kinds)}")
    stat = os.stat(path)
    return InputFile(path, kind, stat.st_size, stat.st_mtime_ns)


def share(sources: list[InputFile], number: int, of: int) -> list[InputFile]:
    """Return share `number` (from 1) of `of`: consecutive files, so that all shares in order are the input.

    A file belongs to the share that contains its middle byte, so that shares are about equally large.
    """
    total = sum(s.size for s in sources) or 1
    mine, before = [], 0
    for source in sources:
        middle = before + source.size / 2
        if min(int(middle * of / total), of - 1) == number - 1:
            mine.append(source)
        before += source.size
    return mine


def columns(sources: list[InputFile], keys: tuple[str, ...], rules: list[str]) -> tuple[tuple[str, ...], ...]:
    """Return the column of each key for each source, by rules `GLOB=COLUMN` or `GLOB:KEY=COLUMN`.

    A glob matches a path or the end of one; the first matching rule applies. Raises UsageError for a
    malformed rule, or one that matches no file.
    """
    parsed = [_rule(rule, keys) for rule in rules]
    used = [False] * len(parsed)
    found = []
    for source in sources:
        mine = dict.fromkeys(keys, "")
        for i, (pattern, key, column) in enumerate(parsed):
            if matches(source.path, pattern):
                used[i] = True
                mine[key] = mine[key] or column
        found.append(tuple(mine[key] or key for key in keys))
    for rule, hit in zip(rules, used, strict=True):
        if not hit:
            raise UsageError(f"--text-key-of {rule} matches no input file")
    return tuple(found)


def _rule(rule: str, keys: tuple[str, ...]) -> tuple[str, str, str]:
    left, equals, column = rule.rpartition("=")
    pattern, _, key = left.rpartition(":") if left.rpartition(":")[2] in keys else (left, "", keys[0])
    if not equals or not pattern or not column:
        raise UsageError(
            f"--text-key-of {rule!r} is not GLOB=KEY or GLOB:OUTPUT=KEY, as in 'code/*.parquet=content'"
        )
    return pattern, key, column


def matches(path: str, pattern: str) -> bool:
    """Return whether a glob matches a path, or its end from any folder on."""
    parts = path.split(os.sep)
    return any(fnmatch.fnmatch("/".join(parts[i:]), pattern) for i in range(len(parts)))
