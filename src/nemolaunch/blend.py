"""Blends of data sets: what was asked for, what it means in tokens, what will be read. Standard library only.

Written `a:0.7,b:0.3`, or as a YAML file:

    weights: tokens          # or rows: shares of documents instead of tokens
    sources:
      - {path: a, weight: 0.7}
      - {path: b, weight: 0.3}
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from nemolaunch.errors import UsageError

UNITS = ("tokens", "rows")
# Weights are shares: together 1, or 100 if given in percent.
TOTALS = (1.0, 100.0)


@dataclass(frozen=True)
class Blend:
    """Sources with their weights, which sum to 1. `unit` says of what they are shares."""

    sources: tuple[tuple[str, float], ...]
    unit: str = "tokens"


@dataclass(frozen=True)
class Source:
    """How much there is of one source."""

    path: str
    tokens: int
    documents: int


@dataclass(frozen=True)
class Share:
    """One line of the ledger.

    Attributes:
        by_tokens, by_rows: the requested share, in both units.
        samples: sequences of the run that come from it.
        achieved: its share of all sequences of the run.
        epochs: how often its tokens are read.
    """

    path: str
    by_tokens: float
    by_rows: float
    samples: int
    achieved: float
    epochs: float


def is_blend(text: str) -> bool:
    """Whether one word of `--dataset-dir` names a blend rather than data."""
    if os.path.exists(text) and not text.endswith((".yaml", ".yml")):
        return False
    return text.endswith((".yaml", ".yml")) or ":" in text


def parse(text: str) -> Blend:
    """A blend from `a:0.7,b:0.3` or the path of a YAML file. Raises UsageError for anything else than
    shares of a whole."""
    if text.endswith((".yaml", ".yml")):
        return _from_yaml(Path(text).expanduser())
    sources = []
    for part in text.split(","):
        path, colon, weight = part.strip().rpartition(":")
        if not colon or not path:
            raise UsageError(
                f"--dataset-dir {text!r}: {part.strip()!r} is not PATH:WEIGHT, as in data/a:0.7,data/b:0.3"
            )
        sources.append((path, _number(weight, path)))
    return checked(sources, "tokens")


def _from_yaml(path: Path) -> Blend:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--dataset-dir {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"--dataset-dir {path} is not YAML: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("sources"), list):
        raise UsageError(
            f"--dataset-dir {path}: a blend has a list of `sources`, each with `path` and `weight`"
        )
    unknown = set(content) - {"sources", "weights"}
    if unknown:
        raise UsageError(
            f"{path}: unknown keys {', '.join(sorted(map(str, unknown)))}; there are weights and sources"
        )
    sources = []
    for entry in content["sources"]:
        if not isinstance(entry, dict) or set(entry) != {"path", "weight"}:
            raise UsageError(f"{path}: {entry!r} is not a source with `path` and `weight`")
        source = Path(str(entry["path"])).expanduser()
        sources.append(
            (str(source if source.is_absolute() else path.parent / source), _number(entry["weight"], source))
        )
    return checked(sources, str(content.get("weights", "tokens")))


def _number(value: object, path: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        raise UsageError(f"the weight of {path} is {value!r}, not a number") from None


def checked(sources: list[tuple[str, float]], unit: str) -> Blend:
    """Shares of a whole, scaled to sum to 1. UsageError for a weight that is not above 0, a path named
    twice, a total
    that is neither 1 nor 100, or another unit than tokens or rows."""
    if unit not in UNITS:
        raise UsageError(f"weights are shares of {' or '.join(UNITS)}, not of {unit!r}")
    if not sources:
        raise UsageError("a blend needs at least one source")
    for path, weight in sources:
        if not weight > 0 or not math.isfinite(weight):
            raise UsageError(
                f"the weight of {path} is {weight:g}; a weight is above 0: leave the source out instead"
            )
    paths = [path for path, _ in sources]
    for path in paths:
        if paths.count(path) > 1:
            raise UsageError(f"{path} stands in the blend twice")
    total = math.fsum(weight for _, weight in sources)
    if not any(math.isclose(total, wanted, rel_tol=1e-6) for wanted in TOTALS):
        raise UsageError(
            f"the weights sum to {total:g}; they are shares of a whole and sum to 1 (or to 100 as percent)"
        )
    return Blend(tuple((path, weight / total) for path, weight in sources), unit)


def token_weights(blend: Blend, found: list[Source]) -> list[float]:
    """The shares in tokens, Megatron's way, whatever the unit: a document of a source has its mean length."""
    if blend.unit == "tokens":
        return [weight for _, weight in blend.sources]
    raw = [w * s.tokens / s.documents for (_, w), s in zip(blend.sources, found, strict=True)]
    return [r / math.fsum(raw) for r in raw]


def row_weights(weights: list[float], found: list[Source]) -> list[float]:
    """Shares in tokens as shares in documents."""
    raw = [w * s.documents / s.tokens for w, s in zip(weights, found, strict=True)]
    return [r / math.fsum(raw) for r in raw]


def ledger(blend: Blend, found: list[Source], *, samples: int, seq_length: int) -> list[Share]:
    """What a run of `samples` sequences of `seq_length` tokens reads of each source.

    Megatron gives each next sequence to the source that is furthest behind its share, so a source's count
    is its share of `samples`, rounded down or up, and the counts sum to `samples`. Raises UsageError for an
    empty source.
    """
    for source in found:
        if not source.tokens or not source.documents:
            raise UsageError(f"{source.path} holds no tokens; leave it out of the blend")
    by_tokens = token_weights(blend, found)
    by_rows = row_weights(by_tokens, found)
    counts = apportion(by_tokens, samples)
    return [
        Share(s.path, t, r, c, c / samples if samples else 0.0, c * seq_length / s.tokens)
        for s, t, r, c in zip(found, by_tokens, by_rows, counts, strict=True)
    ]


def apportion(shares: list[float], total: int) -> list[int]:
    """Whole numbers that sum to `total` and are `shares * total` rounded down or up, the largest
    remainders up."""
    exact = [share * total for share in shares]
    counts = [math.floor(e) for e in exact]
    behind = sorted(range(len(shares)), key=lambda i: counts[i] - exact[i])
    for i in behind[: total - sum(counts)]:
        counts[i] += 1
    return counts


def as_yaml(sources: list[Source]) -> str:
    """A blend of all sources, each weighted by its tokens, so that together they are read like one data
    set."""
    total = sum(s.tokens for s in sources)
    lines = ["weights: tokens", "sources:"]
    for source in sources:
        lines += [f'  - path: "{source.path}"', f"    weight: {source.tokens / total!r}"]
    return "\n".join(lines) + "\n"
