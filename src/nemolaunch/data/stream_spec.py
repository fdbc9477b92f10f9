"""Streams of rows: which files or datasets are read, from which key, in which shares. Standard library only.

Given like a blend, `a:0.7,b:0.3`, as paths alone (one source made of all of them), or as a YAML file:

    weights: rows                # or tokens (the default)
    sources:
      - name: web
        path: hf://datasets/HuggingFaceFW/fineweb-edu/data/**/*.parquet
        weight: 0.9
        tokens: 1.3T             # for estimates; license, url and note are kept for readers
      - name: code
        path: code/*.jsonl.zst   # relative to this file
        text_key: content        # or, as in older files, `column`
        weight: 0.1
      - name: other
        dataset: allenai/c4      # with the `datasets` library, in streaming mode
        config: en

Nothing here looks at the disk: `nemolaunch.facts.dataset_words` reads files and makes paths absolute.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.data import blend
from nemolaunch.data.blend import BlendSpec
from nemolaunch.system.quantities import number, scaled

REMOTE = "hf://"
COUNTS = ("tokens", "rows")
TEXTS = ("name", "dataset", "config", "split", "revision", "text_key", "license", "url", "note")
KEYS = ("path", "weight", *COUNTS, *TEXTS)
# Keys of older files and saved plans, and what they are called now.
RENAMED = {"column": "text_key"}


@dataclass(frozen=True, kw_only=True)
class StreamSource:
    """One source of rows.

    Attributes:
        paths: files, folders, globs or `hf://datasets/…`; empty for a `dataset`.
        dataset, config, split, revision: arguments of `datasets.load_dataset`. A folder on this machine is
            absolute.
        text_key: the key or column with the text; empty for the job's default.
        weight: share of the rows or tokens fed, as given.
        tokens, rows: the source's size, if known.
    """

    name: str
    paths: tuple[str, ...] = ()
    dataset: str | None = None
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    text_key: str = ""
    weight: float = 1.0
    tokens: int | None = None
    rows: int | None = None
    license: str | None = None
    url: str | None = None
    note: str | None = None

    @property
    def is_remote(self) -> bool:
        """Return whether it is read over the network. The name of a dataset in a folder is an absolute path."""
        if self.dataset is not None:
            return not os.path.isabs(self.dataset)
        return any(path.startswith(REMOTE) for path in self.paths)

    @property
    def where(self) -> str:
        """Return what it is read from, for a message."""
        if self.dataset is not None:
            return f"dataset {self.dataset}" + (f" ({self.config})" if self.config else "")
        return ", ".join(self.paths)


@dataclass(frozen=True, kw_only=True)
class StreamSpec:
    """All sources of a run.

    Attributes:
        unit: what the weights are shares of, if a file says so.
        error: why the words cannot be parsed.
    """

    sources: tuple[StreamSource, ...] = ()
    unit: str | None = None
    error: str | None = None

    def as_values(self) -> dict[str, Any]:
        """Return plain values for JSON, without what is not given."""
        return {"unit": self.unit, "sources": [_given(source) for source in self.sources]}

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> StreamSpec:
        """Return the stream that `as_values`, of this or an earlier version, was called on."""
        rows = [{RENAMED.get(name, name): value for name, value in row.items()} for row in values["sources"]]
        sources = [StreamSource(**{**row, "paths": tuple(row.get("paths", ()))}) for row in rows]
        return cls(sources=tuple(sources), unit=values["unit"])


def _given(source: StreamSource) -> dict[str, Any]:
    values = {name: value for name, value in dataclasses.asdict(source).items() if value is not None}
    return {**values, "paths": list(source.paths)}


def with_text_key(stream: StreamSpec, key: str) -> StreamSpec:
    """Return the stream with this key for the sources that name none."""
    sources = (dataclasses.replace(s, text_key=s.text_key or key) for s in stream.sources)
    return dataclasses.replace(stream, sources=tuple(sources))


def shares(stream: StreamSpec) -> list[float]:
    """Return the weights, scaled to sum to 1."""
    total = math.fsum(source.weight for source in stream.sources) or 1.0
    return [source.weight / total for source in stream.sources]


def from_blend(spec: BlendSpec) -> StreamSpec:
    """Return the stream that words without a YAML file name. Paths without weights are one source."""
    if spec.error or spec.unpaired:
        return StreamSpec(error=spec.error or f"the weight {spec.unpaired} has no path after it")
    weights = [weight for weight, _ in spec.sources]
    paths = [path for _, path in spec.sources]
    if not any(weight is not None for weight in weights):
        sources = [StreamSource(name="data", paths=tuple(paths))] if paths else []
        return StreamSpec(sources=tuple(sources))
    if None in weights:
        return StreamSpec(error=f"{len(weights) - weights.count(None)} of {len(weights)} paths have a weight")
    names = [os.path.basename(path.rstrip("/")) for path in paths]
    if len(set(names)) < len(names):
        names = paths
    found = [
        StreamSource(name=name, paths=(path,), weight=weight)
        for name, path, weight in zip(names, paths, weights, strict=True)
        if weight is not None
    ]
    return StreamSpec(sources=tuple(found))


def from_yaml(file: Path, content: object) -> StreamSpec:
    """Return the stream that a YAML file's content describes. Raises ValueError with what is wrong."""
    checked = blend.checked_content(file, content, ("weights", "sources", "note"))
    sources = [_source(file, entry, len(checked["sources"])) for entry in checked["sources"]]
    names = [source.name for source in sources]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{file}: two sources are called {twice}; give one of them another `name`")
    return StreamSpec(sources=tuple(sources), unit=checked.get("weights"))


def _source(file: Path, given: object, count: int) -> StreamSource:
    if not isinstance(given, dict) or not ({"path", "dataset"} & set(given)):
        raise ValueError(f"{file}: {given!r} is not a source with `path` or `dataset`")
    entry = {RENAMED.get(name, name): value for name, value in given.items()}
    unknown = set(entry) - set(KEYS)
    if unknown:
        raise ValueError(
            f"{file}: unknown keys {', '.join(sorted(map(str, unknown)))}; valid keys are {', '.join(KEYS)}"
        )
    if "path" in entry and "dataset" in entry:
        raise ValueError(f"{file}: {given!r} has both `path` and `dataset`")
    path = entry.get("path") or []
    paths = tuple(_absolute(file, str(p)) for p in (path if isinstance(path, list) else [path]))
    texts = {name: str(entry[name]) for name in TEXTS if entry.get(name) is not None}
    texts.setdefault("name", texts.get("dataset") or ", ".join(paths))
    weight = number(entry.get("weight", 1.0 if count == 1 else None))
    if weight is None:
        raise ValueError(f"{file}: the weight of {texts['name']} is {entry.get('weight')!r}, not a number")
    counts = {name: _count(file, name, entry[name]) for name in COUNTS if entry.get(name) is not None}
    return StreamSource(paths=paths, weight=weight, **counts, **texts)  # type: ignore[arg-type]


def _count(file: Path, name: str, value: object) -> int:
    count = scaled(str(value))
    if not isinstance(count, int) or count < 0:
        raise ValueError(f"{file}: {name} is {value!r}, not a number like 1.3T")
    return count


def _absolute(file: Path, path: str) -> str:
    return path if path.startswith(REMOTE) else blend.beside(file, path)
