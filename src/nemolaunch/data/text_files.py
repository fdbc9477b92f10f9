"""Files with documents: how each is read, by its name, and which files a path stands for."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nemolaunch.errors import UsageError

# How a file is compressed, by the last part of its name
PACKINGS = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}
LINES = (".jsonl", ".ndjson")
KINDS = {
    **dict.fromkeys(LINES, "jsonl"),
    **{lines + end: kind for lines in (*LINES, ".json") for end, kind in PACKINGS.items()},
    ".parquet": "parquet",
    ".txt": "text",
}
# In a folder a .json is more often a description than data: it is only read if it is named.
NAMED_KINDS = {**KINDS, ".json": "jsonl"}
# For messages
ENDINGS = ".jsonl, .ndjson (or .json, each also with .gz, .bz2, .xz or .zst), .parquet, .txt"
JSONL_KINDS = ("jsonl", *PACKINGS.values())
# `wiki_00` of WikiExtractor, `part-00000` of Spark, `data.00` of split: the end is a number, or there is none
NUMBERED = re.compile(r"\.\d+")
HEAD_BYTES = 4096


def kind_of(path: Path | str, kinds: dict[str, str]) -> str | None:
    """Return how to read a file, by the longest known ending; None if there is none."""
    name = os.fspath(path).lower()
    if name.endswith(".jsonl"):  # the usual one, perhaps a million times
        return kinds[".jsonl"]
    endings = [ending for ending in kinds if name.endswith(ending)]
    return kinds[max(endings, key=len)] if endings else None


def jsonl_kind_of(path: Path) -> str:
    """Return how to read a file of any name that is said to be JSON Lines, perhaps compressed."""
    known = kind_of(path, NAMED_KINDS)
    return known if known in JSONL_KINDS else PACKINGS.get(path.suffix.lower(), "jsonl")


def has_no_ending(path: Path) -> bool:
    """Return whether the name, apart from compression, says nothing about what is in the file."""
    inner = path.with_suffix("") if path.suffix.lower() in PACKINGS else path
    return not inner.suffix or NUMBERED.fullmatch(inner.suffix) is not None


@dataclass
class Folder:
    """The files below a folder: those that are read, those that are not, and which of them are links."""

    files: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    links: set[str] = field(default_factory=set)


def look_into(folder: Path, *, jsonl: bool = False) -> Folder:
    """Return all files below a folder, sorted, without hidden files and Megatron's own descriptions.

    Links to folders are followed. With `jsonl`, files without an ending whose first character is `{` are read
    too. Raises UsageError for a folder or a link that cannot be followed: documents would be lost silently.
    """
    found = Folder()
    for entry in sorted(_walk(folder), key=lambda entry: entry.path):
        path = entry.path
        known = kind_of(path, KINDS) is not None
        if entry.is_symlink():
            found.links.add(path)
        if not _is(entry.is_file):
            if known and path in found.links:
                raise UsageError(f"{path} is a link to {os.readlink(path)}, which does not exist")
            found.others.append(path)
        elif known or (jsonl and has_no_ending(Path(path)) and _holds_objects(path)):
            found.files.append(path)
        else:
            found.others.append(path)
    return found


def _walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield all below a folder but folders. Entries know what they are without a question to the file system."""
    seen, left = set(), [os.fspath(folder)]
    while left:
        root = left.pop()
        real = os.path.realpath(root)
        if real in seen:  # a link to a folder above, or two to the same
            continue
        seen.add(real)
        try:
            with os.scandir(root) as entries:
                found = [entry for entry in entries if not _is_ignored(entry.name)]
        except OSError as error:
            raise UsageError(f"cannot read the folder {error.filename}: {error.strerror}") from None
        folders = {entry.path for entry in found if _is(entry.is_dir)}
        left += sorted(folders, reverse=True)
        yield from (entry for entry in found if entry.path not in folders)


def _is(question: Callable[[], bool]) -> bool:
    """Return the answer to a question about an entry; False for a link that leads to itself."""
    try:
        return question()
    except OSError:
        return False


def _is_ignored(name: str) -> bool:
    """Return whether a name is hidden, of macOS's archives, or Megatron's cache, which has .txt files."""
    return name.startswith(".") or name == "__MACOSX" or name.endswith("Dataset_indices")


def _holds_objects(path: str) -> bool:
    if Path(path).suffix.lower() in PACKINGS:
        return True
    with open(path, "rb") as file:
        return file.read(HEAD_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")


def in_folder(folder: Path) -> list[str]:
    """Return the data files below a folder, sorted."""
    return look_into(folder).files


def matching(pattern: str) -> list[str]:
    """Return the files that a glob matches, sorted."""
    return sorted(p for p in glob.glob(pattern, recursive=True) if os.path.isfile(p))


def expand(path: str) -> list[str]:
    """Return the files that a file, a folder or a glob stands for; none if nothing exists."""
    where = Path(path).expanduser()
    if where.is_dir():
        return in_folder(where)
    return [str(where)] if where.is_file() else matching(str(where))


def passed_over_in(path: str) -> list[str]:
    """Return the files in a folder that are not read, sorted; none for a file or a glob."""
    where = Path(path).expanduser()
    return look_into(where).others if where.is_dir() else []


def named(paths: list[str], most: int = 3) -> str:
    """Return a count of files and the names of the first."""
    names = ", ".join(map(os.path.basename, paths[:most]))
    return f"{len(paths):,} file{'s' * (len(paths) != 1)} ({names}{', …' * (len(paths) > most)})"
