"""Streams of rows: which files or datasets are read, from which column, in which shares. Standard library only.

Given like a blend, `a:0.7,b:0.3`, as paths alone (one source made of all of them), or as a YAML file:

    weights: rows                # or tokens (the default)
    sources:
      - name: web
        path: hf://datasets/HuggingFaceFW/fineweb-edu/data/**/*.parquet
        weight: 0.9
        tokens: 1.3T             # for estimates; license, url and note are kept for readers
      - name: code
        path: code/*.jsonl.zst   # relative to this file
        column: content
        weight: 0.1
      - name: other
        dataset: allenai/c4      # with the `datasets` library, in streaming mode
        config: en
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
from nemolaunch.system.quantities import number, scaled

REMOTE = "hf://"
COUNTS = ("tokens", "rows")
TEXTS = ("name", "dataset", "config", "split", "revision", "column", "license", "url", "note")
KEYS = ("path", "weight", *COUNTS, *TEXTS)


@dataclass(frozen=True, kw_only=True)
class StreamSource:
    """One source of rows.

    Attributes:
        paths: files, folders, globs or `hf://datasets/…`; empty where it is a `dataset`.
        dataset, config, split, revision: what `datasets.load_dataset` is asked for.
        column: the key or column with the text; empty: what the job names.
        weight: share of the rows or tokens fed, as given.
        tokens, rows: how much there is of it, where known.
    """

    name: str
    paths: tuple[str, ...] = ()
    dataset: str | None = None
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    column: str = ""
    weight: float = 1.0
    tokens: int | None = None
    rows: int | None = None
    license: str | None = None
    url: str | None = None
    note: str | None = None

    @property
    def is_remote(self) -> bool:
        """Whether it is read over the network: a dataset that is no folder here counts as such."""
        if self.dataset is not None:
            return not os.path.isdir(self.dataset)
        return any(path.startswith(REMOTE) for path in self.paths)

    @property
    def where(self) -> str:
        """What it is read from, for a message."""
        if self.dataset is not None:
            return f"dataset {self.dataset}" + (f" ({self.config})" if self.config else "")
        return ", ".join(self.paths)


@dataclass(frozen=True, kw_only=True)
class StreamSpec:
    """All sources of a run. `unit`: what weights are shares of, where a file says so. `error`: why the words
    cannot be read."""

    sources: tuple[StreamSource, ...] = ()
    unit: str | None = None
    error: str | None = None

    def as_values(self) -> dict[str, Any]:
        """As JSON can hold it, without what is not given."""
        return {"unit": self.unit, "sources": [_given(source) for source in self.sources]}

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> StreamSpec:
        """The stream of `as_values`."""
        sources = [StreamSource(**{**row, "paths": tuple(row.get("paths", ()))}) for row in values["sources"]]
        return cls(sources=tuple(sources), unit=values["unit"])


def _given(source: StreamSource) -> dict[str, Any]:
    values = {name: value for name, value in dataclasses.asdict(source).items() if value is not None}
    return {**values, "paths": list(source.paths)}


def with_column(stream: StreamSpec, column: str) -> StreamSpec:
    """The stream with a column for the sources that name none."""
    sources = (dataclasses.replace(s, column=s.column or column) for s in stream.sources)
    return dataclasses.replace(stream, sources=tuple(sources))


def absolute(stream: StreamSpec) -> StreamSpec:
    """The stream with the paths of this machine from its root on: what trains starts in another folder."""

    def whole(path: str) -> str:
        return path if path.startswith(REMOTE) else os.path.abspath(os.path.expanduser(path))

    sources = (
        dataclasses.replace(
            source,
            paths=tuple(map(whole, source.paths)),
            dataset=whole(source.dataset)
            if source.dataset and os.path.isdir(source.dataset)
            else source.dataset,
        )
        for source in stream.sources
    )
    return dataclasses.replace(stream, sources=tuple(sources))


def shares(stream: StreamSpec) -> list[float]:
    """Weights that sum to 1."""
    total = math.fsum(source.weight for source in stream.sources) or 1.0
    return [source.weight / total for source in stream.sources]


def read(words: tuple[str, ...]) -> StreamSpec:
    """What the words of `--dataset-dir` name. Never raises: what cannot be read is `error`."""
    if any(word.endswith((".yaml", ".yml")) and not os.path.isdir(word) for word in words):
        try:
            return _from_yaml(words)
        except ValueError as error:
            return StreamSpec(error=str(error))
    asked = blend.read(words)
    if asked.error or asked.unpaired:
        return StreamSpec(error=asked.error or f"the weight {asked.unpaired} has no path after it")
    weights = [weight for weight, _ in asked.sources]
    paths = [path for _, path in asked.sources]
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


def _from_yaml(words: tuple[str, ...]) -> StreamSpec:
    path, content = blend.read_yaml(words, ("weights", "sources", "note"))
    sources = [_source(path, entry, len(content["sources"])) for entry in content["sources"]]
    names = [source.name for source in sources]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{path}: two sources are called {twice}; give one another `name`")
    return StreamSpec(sources=tuple(sources), unit=content.get("weights"))


def _source(file: Path, entry: object, count: int) -> StreamSource:
    if not isinstance(entry, dict) or not ({"path", "dataset"} & set(entry)):
        raise ValueError(f"{file}: {entry!r} is not a source with `path` or `dataset`")
    unknown = set(entry) - set(KEYS)
    if unknown:
        raise ValueError(
            f"{file}: unknown keys {', '.join(sorted(map(str, unknown)))}; there are {', '.join(KEYS)}"
        )
    if "path" in entry and "dataset" in entry:
        raise ValueError(f"{file}: {entry!r} has both `path` and `dataset`")
    given = entry.get("path") or []
    paths = tuple(_absolute(file, str(p)) for p in (given if isinstance(given, list) else [given]))
    texts = {name: str(entry[name]) for name in TEXTS if entry.get(name) is not None}
    texts.setdefault("name", texts.get("dataset") or ", ".join(paths))
    if "dataset" in texts and os.path.isdir(_absolute(file, texts["dataset"])):
        texts["dataset"] = _absolute(file, texts["dataset"])
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
    """A path of a file's, which is relative to the file."""
    if path.startswith(REMOTE):
        return path
    expanded = Path(path).expanduser()
    return str(expanded if expanded.is_absolute() else file.parent / expanded)
