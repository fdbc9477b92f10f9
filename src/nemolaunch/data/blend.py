"""Blends of data sets: what was requested, what it means in tokens, what will be read. Standard library only.

Written as `a:0.7,b:0.3`, as Megatron's list `0.7 a 0.3 b`, or as a YAML file:

    weights: tokens          # or rows: shares of documents instead of tokens
    sources:
      - {path: a, weight: 0.7}
      - {path: b, weight: 0.3}

Nothing here looks at the disk: `nemolaunch.facts.dataset_words` reads files and says which words are paths.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.system.quantities import number

UNITS = ("tokens", "rows")
YAML_ENDINGS = (".yaml", ".yml")
# Weights are shares: together 1, or 100 if given in percent.
TOTALS = (1.0, 100.0)


@dataclass(frozen=True, kw_only=True)
class BlendSpec:
    """What the words of `--dataset-dir` name.

    Attributes:
        sources: (weight or None, path), in order.
        unit: what the weights are shares of, if a file says so.
        shares: whether the weights are shares of a total; in Megatron's list they need not be.
        unpaired: a weight at the end of Megatron's list, which has no path.
        error: why the words cannot be parsed.
    """

    sources: tuple[tuple[float | None, str], ...] = ()
    unit: str | None = None
    shares: bool = False
    unpaired: str | None = None
    error: str | None = None


def is_total(total: float) -> bool:
    """Return whether weights with this sum are shares of a total: 1, or 100 as percent."""
    return any(math.isclose(total, whole, rel_tol=1e-6) for whole in TOTALS)


def parse(words: tuple[str, ...], exists: Callable[[str], bool]) -> BlendSpec:
    """Parse paths, weights and PATH:WEIGHT words. Never raises: what cannot be parsed is `error`.

    A word that `exists` as a path is one, whatever it looks like.
    """
    if not any(_has_weight(word) and not exists(word) and not exists(word + ".idx") for word in words):
        return _list(words, exists)
    sources = []
    for part in ",".join(words).split(","):
        path, _, weight = part.strip().rpartition(":")
        value = number(weight)
        if not path or value is None:
            return BlendSpec(error=f"{part.strip()!r} is not PATH:WEIGHT, as in data/a:0.7,data/b:0.3")
        sources.append((value, path))
    return BlendSpec(sources=tuple(sources), shares=True)


def _has_weight(word: str) -> bool:
    return any(":" in part and number(part.rpartition(":")[2]) is not None for part in word.split(","))


def _list(words: tuple[str, ...], exists: Callable[[str], bool]) -> BlendSpec:
    """Parse paths, each with or without a weight before it; a number that is not a path is a weight."""
    sources: list[tuple[float | None, str]] = []
    weight: float | None = None
    for word in words:
        value = number(word)
        if value is not None and weight is None and not exists(word):
            weight = value
        else:
            sources.append((weight, word))
            weight = None
    return BlendSpec(sources=tuple(sources), unpaired=words[-1] if weight is not None else None)


def checked_content(file: Path, content: object, keys: tuple[str, ...]) -> dict[str, Any]:
    """Return what a blend's YAML file holds, if that is a list of `sources` and no keys but these.

    Raises ValueError with what is wrong.
    """
    if not isinstance(content, dict) or not isinstance(content.get("sources"), list):
        raise ValueError(f"{file}: a blend has a list of `sources`, each with `path` and `weight`")
    unknown = set(content) - set(keys)
    if unknown:
        names = ", ".join(sorted(map(str, unknown)))
        valid = " and ".join(f"`{key}`" for key in keys)
        raise ValueError(f"{file}: unknown keys {names}; valid keys are {valid}")
    if content.get("weights", "tokens") not in UNITS:
        raise ValueError(f"{file}: weights are shares of {' or '.join(UNITS)}, not of {content['weights']!r}")
    return content


def from_yaml(file: Path, content: object) -> BlendSpec:
    """Return the blend that a YAML file's content describes. Raises ValueError with what is wrong."""
    checked = checked_content(file, content, ("weights", "sources"))
    sources = [_entry(file, entry) for entry in checked["sources"]]
    return BlendSpec(sources=tuple(sources), unit=checked.get("weights"), shares=True)


def _entry(file: Path, entry: object) -> tuple[float, str]:
    if not isinstance(entry, dict) or set(entry) != {"path", "weight"}:
        raise ValueError(f"{file}: {entry!r} is not a source with `path` and `weight`")
    path, weight = str(entry["path"]), number(str(entry["weight"]))
    if weight is None:
        raise ValueError(f"{file}: the weight of {path} is {entry['weight']!r}, not a number")
    return weight, beside(file, path)


def beside(file: Path, path: str) -> str:
    """Return a path that a file names, which is relative to that file."""
    return str(Path(path) if path.startswith(("/", "~")) else file.parent / path)


def as_words(sources: list[tuple[float, str]]) -> tuple[str, ...]:
    """Return sources as one word of `--dataset-dir`, their weights scaled to shares that sum to 1."""
    total = math.fsum(weight for weight, _ in sources)
    return (",".join(f"{path}:{weight / total:.7g}" for weight, path in sources),)


@dataclass(frozen=True, kw_only=True)
class BlendSource:
    """The size of one source: `epoch_tokens` are those of its training share."""

    path: str
    tokens: int
    documents: int
    epoch_tokens: int


@dataclass(frozen=True, kw_only=True)
class Share:
    """One line of the ledger.

    Attributes:
        by_tokens, by_rows: the requested share, in tokens and in documents.
        samples: sequences of the run that come from this source.
        achieved: its share of all sequences of the run.
        epochs: how often its training share is read.
    """

    path: str
    by_tokens: float
    by_rows: float
    samples: int
    achieved: float
    epochs: float


def token_shares(weights: Sequence[float], found: Sequence[BlendSource], unit: str) -> list[float]:
    """Return shares in tokens, which is what Megatron takes, that sum to 1.

    Shares of rows are converted by the mean length of each source's documents.
    """
    if unit == "rows":
        weights = [w * s.tokens / max(1, s.documents) for w, s in zip(weights, found, strict=True)]
    return _scaled(weights)


def ledger(
    shares: Sequence[float], found: Sequence[BlendSource], samples: int, seq_length: int
) -> list[Share]:
    """Return what a run of `samples` sequences of `seq_length` tokens reads of each source.

    `shares` are in tokens. Megatron takes each next sequence from the source that is furthest behind its share
    (`build_blending_indices`), so a source's count is its share of `samples`, rounded down or up.
    """
    by_rows = _scaled([w * s.documents / max(1, s.tokens) for w, s in zip(shares, found, strict=True)])
    counts = apportion(shares, samples)
    return [
        Share(
            path=source.path,
            by_tokens=by_tokens,
            by_rows=rows,
            samples=count,
            achieved=count / samples if samples else 0.0,
            epochs=count * seq_length / max(1, source.epoch_tokens),
        )
        for source, by_tokens, rows, count in zip(found, shares, by_rows, counts, strict=True)
    ]


def _scaled(weights: Sequence[float]) -> list[float]:
    total = math.fsum(weights) or 1.0
    return [weight / total for weight in weights]


def apportion(shares: Sequence[float], total: int) -> list[int]:
    """Return integers that sum to `total`: `shares * total` rounded down, or up for the largest remainders."""
    exact = [share * total for share in shares]
    counts = [math.floor(e) for e in exact]
    behind = sorted(range(len(shares)), key=lambda i: counts[i] - exact[i])
    for i in behind[: total - sum(counts)]:
        counts[i] += 1
    return counts


def as_yaml(sources: list[tuple[int, str]]) -> str:
    """Return the YAML of a blend of (tokens, path) that reads all of them as if they were one data set."""
    total = sum(tokens for tokens, _ in sources)
    lines = ["weights: tokens", "sources:"]
    for tokens, path in sources:
        lines += [f"  - path: {json.dumps(path, ensure_ascii=False)}", f"    weight: {tokens / total!r}"]
    return "\n".join(lines) + "\n"
