"""Inspect the sources of a stream before a launch: the first file of each, and how many there are.

No hub is contacted. The standard library is enough, except for the columns of parquet and zstd files, which are
only known if pyarrow or zstandard is installed.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from nemolaunch.data.causes import form_of, head_of, likely_key
from nemolaunch.data.packed import PackedReader
from nemolaunch.data.stream_spec import REMOTE, StreamSource, StreamSpec
from nemolaunch.data.text_files import (
    ENDINGS,
    NAMED_KINDS,
    PACKINGS,
    expand,
    kind_of,
    named,
    passed_over_in,
)
from nemolaunch.errors import UsageError
from nemolaunch.system.path_hints import nearest
from nemolaunch.system.quantities import counted

HUB_DATASETS = REMOTE + "datasets/"
# A longer first line is not inspected.
MAX_LINE_BYTES = 1 << 22
# Files of a source whose beginning is read
LOOKED_INTO = 8


@dataclass(frozen=True, kw_only=True)
class SourceFacts:
    """Facts about one source.

    Attributes:
        num_files, num_bytes: of its local files; 0 if it is remote.
        num_packed: number of compressed files, which can only be read from the beginning.
        columns: of its first file, if known.
        likely_key: the key that probably holds the text, if the asked one does not.
        not_read: a count and the first names of files in its folders that are passed over; empty if there are none.
        error: why it cannot be read, or None. `instead`: the path that was probably meant.
        folders: that contain its files, including the targets of links.
    """

    num_files: int = 0
    num_bytes: int = 0
    num_packed: int = 0
    columns: tuple[str, ...] | None = None
    likely_key: str | None = None
    not_read: str = ""
    error: str | None = None
    instead: str | None = None
    folders: tuple[str, ...] = ()


def look_at_stream(stream: StreamSpec, text_key: str = "text") -> tuple[SourceFacts, ...]:
    """Inspect every source. Never raises: problems are reported in `error`.

    Args:
        text_key: the key of the text, for sources that name none.
    """
    return tuple(_look(source, source.text_key or text_key) for source in stream.sources)


def _look(source: StreamSource, key: str) -> SourceFacts:
    if source.dataset is not None:
        return _dataset(source.dataset)
    names: list[str] = []
    others: list[str] = []
    for path in source.paths:
        if path.startswith(REMOTE):
            if not path.startswith(HUB_DATASETS):
                return SourceFacts(error=f"{path} does not start with {HUB_DATASETS}OWNER/NAME")
            continue
        try:
            found, passed_over = expand(path), passed_over_in(path)
        except UsageError as error:
            return SourceFacts(error=str(error))
        if not found:
            return _nothing_there(path, passed_over)
        names += found
        others += passed_over
    if not names:
        return SourceFacts()
    unknown = next((name for name in names if kind_of(Path(name), NAMED_KINDS) is None), None)
    if unknown is not None:
        return SourceFacts(error=f"{unknown} has an unsupported format; supported are {ENDINGS}")
    kinds = [kind_of(Path(name), NAMED_KINDS) for name in names]
    try:
        columns = _columns(names[0], str(kinds[0]))
    except (OSError, EOFError, ValueError) as error:
        return SourceFacts(error=f"{names[0]} cannot be read: {' '.join(str(error).split())[:200]}")
    heads = {
        name: head_of(name, str(kind)) for name, kind in list(zip(names, kinds, strict=True))[:LOOKED_INTO]
    }
    for name, head in heads.items():
        if cause := form_of(head):
            return SourceFacts(error=f"{name} is not JSON Lines. {cause}")
    num_bytes = sum(os.path.getsize(name) for name in names)
    if not num_bytes:
        return SourceFacts(
            error=f"{source.where} is empty: its {counted(len(names), 'file has', 'files have')} 0 bytes"
        )
    return SourceFacts(
        num_files=len(names),
        num_bytes=num_bytes,
        num_packed=sum(kind in PACKINGS.values() for kind in kinds),
        columns=columns,
        likely_key=likely_key(heads[names[0]], (key,)),
        not_read=named(others) if others else "",
        folders=tuple(dict.fromkeys(f for path in source.paths for f in _roots(path))),
    )


def _roots(path: str) -> list[str]:
    """Return the folder that contains all files of a path, and the target folder if they are links."""
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
        return SourceFacts(error=f"the folder {name} does not exist")
    return SourceFacts()


def _nothing_there(path: str, others: list[str]) -> SourceFacts:
    expanded = os.path.expanduser(path)
    if os.path.isdir(expanded):
        prefixes = any(Path(expanded).rglob("*.idx"))
        more = "; it has .bin/.idx files, which need --data-mode indexed" if prefixes else ""
        more = (f"; {named(others)} not read" if others else "") + more
        return SourceFacts(error=f"{path} contains no file of a supported format: {ENDINGS}{more}")
    return SourceFacts(error=f"{path} does not exist", instead=nearest(path))


def _columns(path: str, kind: str) -> tuple[str, ...] | None:
    """Return the columns of a file, or the keys of its first line. Raise OSError or ValueError if it is damaged."""
    if kind == "text":
        return None
    library = {"parquet": "pyarrow", "zstd": "zstandard"}.get(kind)
    if library and importlib.util.find_spec(library) is None:
        return None
    if kind == "parquet":
        import pyarrow.parquet as pq

        schema = pq.read_schema(path)
        return tuple(name for field in schema for name in _fields(field.name, field.type))
    with open(path, "rb") as file:
        line = _first_line(file, kind, os.path.getsize(path))
    try:
        record = json.loads(line)
    except ValueError:  # a single bad line does not make the file unusable
        return None
    return tuple(_keys(record)) if isinstance(record, dict) else None


def _keys(record: dict[str, Any], above: str = "") -> Iterator[str]:
    """Yield the keys of a record, those inside other objects as `data.text`."""
    for key, value in record.items():
        yield above + key
        if isinstance(value, dict):
            yield from _keys(value, f"{above}{key}.")


def _fields(name: str, kind: Any) -> Iterator[str]:
    """Yield the name of a column, and of the fields in it as `data.text`."""
    yield name
    for i in range(kind.num_fields if hasattr(kind, "get_field_index") else 0):
        yield from _fields(f"{name}.{kind.field(i).name}", kind.field(i).type)


def _first_line(file: IO[bytes], kind: str, size: int) -> bytes:
    if kind == "jsonl":
        return file.readline(MAX_LINE_BYTES)
    reader = PackedReader(file, kind, size)
    block = reader.read()
    if reader.damage:
        raise ValueError(reader.damage.reason)
    return block[:MAX_LINE_BYTES].partition(b"\n")[0]
