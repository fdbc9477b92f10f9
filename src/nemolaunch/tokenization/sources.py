"""Which files are read, in which order, and which share of them belongs to a task."""

from __future__ import annotations

import fnmatch
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.data.text_files import (
    ENDINGS,
    JSONL_KINDS,
    KINDS,
    NAMED_KINDS,
    has_no_ending,
    jsonl_kind_of,
    kind_of,
    look_into,
    matching,
    named,
)
from nemolaunch.errors import UsageError
from nemolaunch.system import remote
from nemolaunch.system.collector import paused_collector


@dataclass(frozen=True)
class InputFile:
    """One input file, or an object in a store.

    Attributes:
        path: a path or a URL.
        size: in bytes, as it is stored.
        modified: in ns since the epoch; of an object, a number that changes with its content.
        is_link: whether the path is another name of a file.
    """

    path: str
    kind: str
    size: int
    modified: int
    is_link: bool = False


def split_by_hash(share: float) -> dict[str, Any]:
    """Return the fields of a request that send this share of documents, by their hash, to validation."""
    if not 0 < share < 1:
        raise UsageError(f"--validation-share {share}: must be between 0 and 1")
    return {"validation": share, "split": {"rule": "document hash", "validation_share": share}}


@paused_collector()
def find(
    inputs: list[str], kind: str = "auto", tell: Callable[[str], None] = lambda _: None
) -> list[InputFile]:
    """Return the files that files, folders and globs name; folders are read recursively, sorted by path.

    `kind` "text" selects .txt files, "jsonl" and "parquet" those; "auto" selects text only if there is
    nothing else. Raises UsageError if an input is missing, has no data, or is of an unknown kind.

    Args:
        tell: takes a remark about files that are not read.
    """
    found: dict[str, InputFile] = {}
    real_folder = functools.cache(os.path.realpath)
    for given in inputs:
        for source in (
            _find_remote(given, kind, tell) if remote.is_url(given) else _find_one(given, kind, tell)
        ):
            found.setdefault(_name_of(source, real_folder), source)
    return list(found.values())


def _name_of(source: InputFile, real_folder: Callable[[str], str]) -> str:
    """Return the one name of a file that may be given by several."""
    if remote.is_url(source.path):
        return source.path
    folder, name = os.path.split(source.path)
    return os.path.realpath(source.path) if source.is_link else f"{real_folder(folder)}/{name}"


def _find_one(given: str, kind: str, tell: Callable[[str], None]) -> list[InputFile]:
    path = Path(given).expanduser()
    is_link: Callable[[str], bool] = os.path.islink
    if path.is_dir():
        folder = look_into(path, jsonl=kind == "jsonl")
        paths, others, kinds = folder.files, folder.others, KINDS
        is_link = folder.links.__contains__
    elif path.is_file():
        paths, others, kinds = [str(path)], [], NAMED_KINDS
    else:
        paths, others, kinds = matching(str(path)), [], NAMED_KINDS
        if not paths:
            raise UsageError(
                f"--input-dir {given}: there is no such file or folder, and as a glob it matches nothing"
            )
    sources = [_source(p, kinds, kind, is_link(p)) for p in paths]
    wanted = sources if path.is_file() else _wanted(sources, kind)
    read = {s.path for s in wanted}
    others = sorted([*others, *(p for p in paths if p not in read)])
    if not wanted:
        raise UsageError(_no_data(given, kind, others))
    if others:
        tell(f"{given}: {named(others)} not read{_hint(others, kind)}")
    return wanted


def _find_remote(given: str, kind: str, tell: Callable[[str], None]) -> list[InputFile]:
    """Return the objects that a URL of a folder, an object or a glob names."""
    try:
        found = remote.find(given)
    except OSError as error:
        raise UsageError(f"--input-dir {given}: {error.strerror}") from None
    if not found:
        raise UsageError(
            f"--input-dir {given}: there is no such object or folder, and as a glob it matches nothing"
        )
    is_named = len(found) == 1 and found[0].url == given
    kinds = NAMED_KINDS if is_named or any(letter in given for letter in "*?[") else KINDS
    sources, others = [], []
    for file in found:
        path = Path(file.url)
        known = kind_of(path, kinds)
        if known is None and kind == "jsonl" and has_no_ending(path):
            known = jsonl_kind_of(path)
        if known is None or path.name.startswith("."):
            others.append(file.url)
        else:
            sources.append(InputFile(file.url, known, file.size, file.version))
    wanted = sources if is_named else _wanted(sources, kind)
    read = {source.path for source in wanted}
    others = sorted([*others, *(source.path for source in sources if source.path not in read)])
    if not wanted:
        raise UsageError(_no_data(given, kind, others))
    if others:
        tell(f"{given}: {named(others)} not read{_hint(others, kind)}")
    return wanted


def _wanted(sources: list[InputFile], kind: str) -> list[InputFile]:
    if kind == "auto":
        other = [s for s in sources if s.kind != "text"]
        return other or sources
    kinds = JSONL_KINDS if kind == "jsonl" else (kind,)
    return [s for s in sources if s.kind in kinds]


def _no_data(given: str, kind: str, others: list[str]) -> str:
    what = {"auto": ENDINGS, "jsonl": "JSON Lines", "text": ".txt", "parquet": ".parquet"}[kind]
    if not others:
        return f"--input-dir {given} has no data: it contains no files"
    return (
        f"--input-dir {given} has no data: {named(others)} not read, wanted are {what}{_hint(others, kind)}"
    )


def _hint(others: list[str], kind: str) -> str:
    """Return how to have some of these files read."""
    if any(kind_of(Path(p), NAMED_KINDS) == "jsonl" and p.lower().endswith(".json") for p in others):
        return "; a .json is read if it is named, as in --input-dir 'FOLDER/*.json'"
    if kind == "auto" and any(has_no_ending(Path(p)) for p in others):
        return "; --format jsonl reads JSON Lines whose names have no ending"
    return ""


def _source(path: str, kinds: dict[str, str], wanted: str, is_link: bool) -> InputFile:
    kind = kind_of(path, kinds)
    if kind is None and wanted == "jsonl":
        kind = jsonl_kind_of(Path(path))
    if kind is None:
        raise UsageError(
            f"{path}: unknown kind of file; names end in {ENDINGS}, or --format jsonl reads it as JSON Lines"
        )
    stat = os.stat(path)
    return InputFile(path, kind, stat.st_size, stat.st_mtime_ns, is_link)


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
    if not rules:
        return (keys,) * len(sources)
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
