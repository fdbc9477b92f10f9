"""Blends of data sets: what was asked for, what it means in tokens, what will be read. Standard library only.

Written `a:0.7,b:0.3`, as Megatron's list `0.7 a 0.3 b`, or as a YAML file:

    weights: tokens          # or rows: shares of documents instead of tokens
    sources:
      - {path: a, weight: 0.7}
      - {path: b, weight: 0.3}
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.system.quantities import number

UNITS = ("tokens", "rows")
# Weights are shares: together 1, or 100 if given in percent.
TOTALS = (1.0, 100.0)


@dataclass(frozen=True, kw_only=True)
class BlendSpec:
    """What the words of `--dataset-dir` name.

    Attributes:
        sources: (weight or None, path), in order.
        unit: of what the weights are shares, where a file says so.
        shares: whether the weights are shares of a whole; in Megatron's list they need not be.
        unpaired: a weight that ends Megatron's list and so belongs to no path.
        error: why the words cannot be read.
    """

    sources: tuple[tuple[float | None, str], ...] = ()
    unit: str | None = None
    shares: bool = False
    unpaired: str | None = None
    error: str | None = None


def is_whole(total: float) -> bool:
    """Whether weights that sum to it are shares of a whole: 1, or 100 as percent."""
    return any(math.isclose(total, whole, rel_tol=1e-6) for whole in TOTALS)


def read(words: tuple[str, ...]) -> BlendSpec:
    """What the words name. Never raises: what cannot be read is `error`."""
    if any(_is_blend(word) for word in words):
        try:
            return _blend(words)
        except ValueError as error:
            return BlendSpec(error=str(error))
    return _list(words)


def _is_blend(word: str) -> bool:
    """Whether one word is a blend rather than data or a weight."""
    if word.endswith((".yaml", ".yml")):
        return not os.path.isdir(word)
    if os.path.exists(word) or os.path.exists(word + ".idx"):
        return False
    return any(":" in part and number(part.rpartition(":")[2]) is not None for part in word.split(","))


def _list(words: tuple[str, ...]) -> BlendSpec:
    """Paths, each after its weight or without; a word that is a number and no existing path is a weight."""
    sources: list[tuple[float | None, str]] = []
    weight: float | None = None
    for word in words:
        value = number(word)
        if value is not None and weight is None and not os.path.exists(word):
            weight = value
        else:
            sources.append((weight, os.path.expanduser(word)))
            weight = None
    return BlendSpec(sources=tuple(sources), unpaired=words[-1] if weight is not None else None)


def _blend(words: tuple[str, ...]) -> BlendSpec:
    if words[0].endswith((".yaml", ".yml")):
        return _from_yaml(words)
    sources = []
    for part in ",".join(words).split(","):
        path, _, weight = part.strip().rpartition(":")
        value = number(weight)
        if not path or value is None:
            raise ValueError(f"{part.strip()!r} is not PATH:WEIGHT, as in data/a:0.7,data/b:0.3")
        sources.append((value, os.path.expanduser(path)))
    return BlendSpec(sources=tuple(sources), shares=True)


def read_yaml(words: tuple[str, ...], keys: tuple[str, ...]) -> tuple[Path, dict[str, Any]]:
    """A YAML file that stands alone among the words, with a list of `sources` and no keys but these.

    Raises ValueError with what is wrong.
    """
    import yaml

    if len(words) > 1:
        raise ValueError(f"{words[0]} describes a whole blend; it stands alone, without {words[1]}")
    path = Path(words[0]).expanduser()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not isinstance(content.get("sources"), list):
        raise ValueError(f"{path}: a blend has a list of `sources`, each with `path` and `weight`")
    unknown = set(content) - set(keys)
    if unknown:
        names = ", ".join(sorted(map(str, unknown)))
        raise ValueError(f"{path}: unknown keys {names}; there are {' and '.join(f'`{k}`' for k in keys)}")
    if content.get("weights", "tokens") not in UNITS:
        raise ValueError(f"{path}: weights are shares of {' or '.join(UNITS)}, not of {content['weights']!r}")
    return path, content


def _from_yaml(words: tuple[str, ...]) -> BlendSpec:
    path, content = read_yaml(words, ("weights", "sources"))
    sources = [_entry(path, entry) for entry in content["sources"]]
    return BlendSpec(sources=tuple(sources), unit=content.get("weights"), shares=True)


def _entry(path: Path, entry: object) -> tuple[float, str]:
    if not isinstance(entry, dict) or set(entry) != {"path", "weight"}:
        raise ValueError(f"{path}: {entry!r} is not a source with `path` and `weight`")
    source, weight = Path(str(entry["path"])).expanduser(), number(str(entry["weight"]))
    if weight is None:
        raise ValueError(f"{path}: the weight of {source} is {entry['weight']!r}, not a number")
    return weight, str(source if source.is_absolute() else path.parent / source)


def as_words(sources: list[tuple[float, str]]) -> tuple[str, ...]:
    """Sources as one word of `--dataset-dir`, their weights scaled to shares that sum to 1."""
    total = math.fsum(weight for weight, _ in sources)
    return (",".join(f"{path}:{weight / total:.7g}" for weight, path in sources),)


@dataclass(frozen=True, kw_only=True)
class BlendSource:
    """How much there is of one source: `epoch_tokens` are those of its training share."""

    path: str
    tokens: int
    documents: int
    epoch_tokens: int


@dataclass(frozen=True, kw_only=True)
class Share:
    """One line of the ledger.

    Attributes:
        by_tokens, by_rows: the share asked for, in tokens and in documents.
        samples: sequences of the run that come from it.
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
    """Shares in tokens, Megatron's way, that sum to 1: a document of a source has its mean length."""
    if unit == "rows":
        weights = [w * s.tokens / max(1, s.documents) for w, s in zip(weights, found, strict=True)]
    return _scaled(weights)


def ledger(
    shares: Sequence[float], found: Sequence[BlendSource], samples: int, seq_length: int
) -> list[Share]:
    """What a run of `samples` sequences of `seq_length` tokens reads of each source, by shares in tokens.

    Megatron gives each next sequence to the source that is furthest behind its share
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
    """Whole numbers that sum to `total` and are `shares * total` rounded down or up, the largest
    remainders up."""
    exact = [share * total for share in shares]
    counts = [math.floor(e) for e in exact]
    behind = sorted(range(len(shares)), key=lambda i: counts[i] - exact[i])
    for i in behind[: total - sum(counts)]:
        counts[i] += 1
    return counts


def as_yaml(sources: list[tuple[int, str]]) -> str:
    """A blend of (tokens, path) that reads all of them like one data set."""
    total = sum(tokens for tokens, _ in sources)
    lines = ["weights: tokens", "sources:"]
    for tokens, path in sources:
        lines += [f"  - path: {json.dumps(path, ensure_ascii=False)}", f"    weight: {tokens / total!r}"]
    return "\n".join(lines) + "\n"
