"""The files of a stream as they were when the run started: what is read does not change during a run."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.data.stream_spec import REMOTE, StreamSource, StreamSpec
from nemolaunch.data.text_files import ENDINGS, KINDS, NAMED_KINDS, expand, kind_of
from nemolaunch.errors import NemolaunchError
from nemolaunch.stream import hub
from nemolaunch.system.atomic_files import write_bytes

FORMAT = 1


@dataclass(frozen=True)
class File:
    """One file, or one shard of a dataset of the `datasets` library, whose number is its path.

    Attributes:
        kind: as `nemolaunch.data.text_files` names it, or `dataset`.
        size: in bytes; 1 for a shard.
    """

    path: str
    kind: str
    size: int


@dataclass(frozen=True)
class Listed:
    """A source with all its files. `source.revision` of a dataset is a commit."""

    source: StreamSource
    files: tuple[File, ...]

    @property
    def digest(self) -> str:
        """Return a hash of what the order of rows depends on.

        That is the key of the text, and names, sizes and order of the files; but not their folder.
        """
        rows = [self.source.text_key, [[os.path.basename(f.path), f.size] for f in self.files]]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


@dataclass(frozen=True)
class Manifest:
    """All sources of a stream, in order."""

    sources: tuple[Listed, ...]

    def as_values(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        spec = StreamSpec(sources=tuple(listed.source for listed in self.sources))
        files = [[[f.path, f.kind, f.size] for f in listed.files] for listed in self.sources]
        return {"format": FORMAT, "stream": spec.as_values(), "files": files}

    @property
    def digest(self) -> str:
        """Return a hash of all sources and their files."""
        rows = [
            [listed.source.name, listed.digest, [f.path for f in listed.files[:1]]] for listed in self.sources
        ]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write it, compressed and atomically."""
        write_bytes(path, gzip.compress(json.dumps(self.as_values()).encode(), mtime=0))

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read a saved manifest. Raises NemolaunchError."""
        try:
            content = json.loads(gzip.decompress(path.read_bytes()))
            if content["format"] != FORMAT:
                raise ValueError(f"it has format {content['format']}, not {FORMAT}")
            spec = StreamSpec.from_values(content["stream"])
            listed = [
                Listed(source, tuple(File(*row) for row in rows))
                for source, rows in zip(spec.sources, content["files"], strict=True)
            ]
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise NemolaunchError(f"cannot read the list of the run's files, {path}: {error}") from None
        return cls(tuple(listed))


def make(stream: StreamSpec) -> Manifest:
    """List the files of every source. Raises NemolaunchError for one that does not exist or has no data."""
    return Manifest(tuple(_listed(source) for source in stream.sources))


def _listed(source: StreamSource) -> Listed:
    if source.dataset is not None:
        return _shards(source)
    files: dict[str, File] = {}
    for path in source.paths:
        for file in _remote(path) if path.startswith(REMOTE) else _local(source, path):
            files.setdefault(file.path, file)
    if any(file.kind != "text" for file in files.values()):  # beside data, a text file is a description
        files = {path: file for path, file in files.items() if file.kind != "text"}
    return Listed(source, tuple(files.values()))


def _remote(path: str) -> list[File]:
    return [File(name, kind_of(Path(name), KINDS) or "", size) for name, size in hub.find(path)]


def _local(source: StreamSource, path: str) -> list[File]:
    names = expand(path)
    if not names:
        raise NemolaunchError(
            f"source {source.name}: {path} is not a data file, a folder or a glob that matches any"
        )
    found = []
    for name in names:
        kind = kind_of(Path(name), NAMED_KINDS)
        if kind is None:
            raise NemolaunchError(f"source {source.name}: {name} is of an unknown kind; known are {ENDINGS}")
        found.append(File(os.path.abspath(name), kind, os.path.getsize(name)))
    return found


def _shards(source: StreamSource) -> Listed:
    from nemolaunch.stream.datasets import load

    if source.is_remote:
        commit = hub.revision_of(str(source.dataset), source.revision)
        source = dataclasses.replace(source, revision=commit)
    count = load(source).num_shards
    return Listed(source, tuple(File(str(number), "dataset", 1) for number in range(count)))
