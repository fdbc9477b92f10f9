"""What a look at the sources of a stream tells before anything starts: the first file of each, and how many.

Nothing on a hub is asked. The standard library does, but for parquet and zstd, of which the columns are seen
only where pyarrow is installed.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from nemolaunch.data.stream_spec import REMOTE, StreamSource, StreamSpec
from nemolaunch.data.text_files import KINDS, NAMED_KINDS, expand, kind_of
from nemolaunch.system.path_hints import nearest

HUB_DATASETS = REMOTE + "datasets/"
# Of a first line; a longer one is not looked at.
MOST_LINE_BYTES = 1 << 22


@dataclass(frozen=True, kw_only=True)
class SourceFacts:
    """What was seen of one source.

    Attributes:
        num_files, num_bytes: of its files here; 0 where it is remote.
        num_packed: files that can only be read from their beginning.
        columns: of its first file, where they can be told.
        error: why it cannot be read, or None. `instead`: the path that was probably meant.
        folders: below which its files lie, also where they are links.
    """

    num_files: int = 0
    num_bytes: int = 0
    num_packed: int = 0
    columns: tuple[str, ...] | None = None
    error: str | None = None
    instead: str | None = None
    folders: tuple[str, ...] = ()


def look_at_stream(stream: StreamSpec) -> tuple[SourceFacts, ...]:
    """Every source. Never raises: what is missing is `error`."""
    return tuple(map(_look, stream.sources))


def _look(source: StreamSource) -> SourceFacts:
    if source.dataset is not None:
        return _dataset(source.dataset)
    names: list[str] = []
    for path in source.paths:
        if path.startswith(REMOTE):
            if not path.startswith(HUB_DATASETS):
                return SourceFacts(error=f"{path} does not begin with {HUB_DATASETS}OWNER/NAME")
            continue
        found = expand(path)
        if not found:
            return _nothing_there(path)
        names += found
    if not names:
        return SourceFacts()
    unknown = next((name for name in names if kind_of(Path(name), NAMED_KINDS) is None), None)
    if unknown is not None:
        return SourceFacts(error=f"{unknown} is of no kind that is read: {', '.join(KINDS)}")
    kinds = [kind_of(Path(name), NAMED_KINDS) for name in names]
    try:
        columns = _columns(names[0], str(kinds[0]))
    except (OSError, EOFError, ValueError) as error:
        return SourceFacts(error=f"{names[0]} cannot be read: {' '.join(str(error).split())[:200]}")
    num_bytes = sum(os.path.getsize(name) for name in names)
    if not num_bytes:
        return SourceFacts(error=f"{source.where} is empty: there is no byte in its {len(names)} file(s)")
    return SourceFacts(
        num_files=len(names),
        num_bytes=num_bytes,
        num_packed=sum(kind in ("gzip", "zstd") for kind in kinds),
        columns=columns,
        folders=tuple(dict.fromkeys(f for path in source.paths for f in _roots(path))),
    )


def _roots(path: str) -> list[str]:
    """The folder that all files of a path lie below, and the one that it is a link to."""
    if path.startswith(REMOTE):
        return []
    root = os.path.abspath(os.path.expanduser(path))
    while not os.path.isdir(root) or any(letter in root for letter in "*?["):
        root = os.path.dirname(root)
    links = {os.path.dirname(os.path.realpath(name)) for name in expand(path)[:1]}
    return list(dict.fromkeys([root, *(link for link in links if not link.startswith(root))]))


def _dataset(name: str) -> SourceFacts:
    if os.path.isdir(name):
        return SourceFacts(folders=(os.path.abspath(name),))
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:
        return SourceFacts(error=f"there is no folder {name}")
    return SourceFacts()


def _nothing_there(path: str) -> SourceFacts:
    expanded = os.path.expanduser(path)
    if os.path.isdir(expanded):
        prefixes = any(Path(expanded).rglob("*.idx"))
        more = "; it has .bin/.idx files, which --data-mode indexed reads" if prefixes else ""
        return SourceFacts(error=f"{path} holds no file that is read: {', '.join(KINDS)}{more}")
    return SourceFacts(error=f"there is no {path}", instead=nearest(path))


def _columns(path: str, kind: str) -> tuple[str, ...] | None:
    """Columns of a file, or keys of its first line. Raises OSError or ValueError for a damaged file."""
    if kind == "text":
        return None
    if kind in ("parquet", "zstd") and importlib.util.find_spec("pyarrow") is None:
        return None
    if kind == "parquet":
        import pyarrow.parquet as pq

        return tuple(pq.read_schema(path).names)
    with open(path, "rb") as file:
        line = _opened(file, kind).readline(MOST_LINE_BYTES)
    try:
        record = json.loads(line)
    except ValueError:  # one bad line is no damage
        return None
    return tuple(record) if isinstance(record, dict) else None


def _opened(file: IO[bytes], kind: str) -> Any:
    if kind == "gzip":
        return gzip.GzipFile(fileobj=file)
    if kind == "zstd":
        import io

        import pyarrow

        return io.BytesIO(pyarrow.CompressedInputStream(file, "zstd").read(MOST_LINE_BYTES))
    return file
