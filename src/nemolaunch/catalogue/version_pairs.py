"""Which releases of NeMo and Megatron-Core work together, and which patches they need. NeMo requires any Megatron."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FILE = Path(__file__).parent / "version_pairs.json"

Release = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A release of NeMo with one of Megatron-Core.

    Attributes:
        proven: whether it trained, resumed and exported, with the losses of the other proven pairs.
        fails: why NeMo cannot be imported with this Megatron-Core; None if it can.
        source: how this is known.
    """

    nemo: str
    megatron: str
    proven: bool = False
    fails: str | None = None
    source: str

    def __str__(self) -> str:
        return f"NeMo {self.nemo} with Megatron-Core {self.megatron}"


@dataclass(frozen=True, kw_only=True)
class BridgePair:
    """A release of Megatron-Bridge with the Megatron-Core it was released with.

    Attributes:
        fails: what does not work; None if it trained, was killed and resumed, with the losses of the ordinary pair.
        source: how this is known.
    """

    bridge: str
    megatron: str
    fails: str | None = None
    source: str

    def __str__(self) -> str:
        return f"Megatron-Bridge {self.bridge} with Megatron-Core {self.megatron}"

    def is_like(self, bridge: str | None, megatron: str | None) -> bool:
        """Return whether these releases have the same first two numbers, as far as they are known."""
        pairs = ((self.bridge, bridge), (self.megatron, megatron))
        return all(have is None or release(have)[:2] == release(own)[:2] for own, have in pairs)


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A change to NeMo or Megatron in the training process; `nemolaunch.nemo2.patches` has the function.

    Attributes:
        megatron: the first release of Megatron-Core that needs it.
        models: NeMo's model classes that need it; None for all.
        thread: the public report of the fault.
        what: the fault.
    """

    name: str
    megatron: str
    thread: str
    what: str
    models: tuple[str, ...] | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.what} ({self.thread})"

    def concerns(self, model_class: str | None) -> bool:
        """Return whether a model of this class needs it; None stands for any model."""
        return self.models is None or model_class is None or model_class in self.models


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is known of two releases.

    Attributes:
        status: "works" (proven, or of the same minor releases as a proven pair), "imports" (can be imported, but has
            not been trained), "fails" or "unknown".
        pair: the pair in the table that this was judged by, if any.
    """

    status: str
    pair: Pair | None = None


def release(text: str) -> Release:
    """Return the numbers that a version starts with: `2.7.0rc1` → (2, 7, 0)."""
    numbers = []
    for part in text.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    return tuple(numbers)


@functools.cache
def _table() -> dict[str, Any]:
    return dict(json.loads(_FILE.read_text(encoding="utf-8")))


@functools.cache
def pairs() -> tuple[Pair, ...]:
    """Return all pairs that were tried."""
    sources = _table()["sources"]
    return tuple(Pair(**{**row, "source": sources[row["source"]]}) for row in _table()["pairs"])


@functools.cache
def bridge_pairs() -> tuple[BridgePair, ...]:
    """Return all pairs of Megatron-Bridge and Megatron-Core that were tried, oldest first."""
    sources = _table()["sources"]
    return tuple(BridgePair(**{**row, "source": sources[row["source"]]}) for row in _table()["bridge_pairs"])


def bridge_pair(bridge: str | None, megatron: str | None) -> BridgePair | None:
    """Return the pair that tells how these releases train, by their first two numbers; None if none was tried."""
    return next((pair for pair in bridge_pairs() if pair.is_like(bridge, megatron)), None)


@functools.cache
def patches() -> tuple[Patch, ...]:
    """Return all patches, in the order in which they are applied."""
    rows = _table()["patches"]
    return tuple(
        Patch(**{**row, "models": tuple(row["models"]) if "models" in row else None}) for row in rows
    )


def patches_for(megatron: str, model_class: str | None = None) -> tuple[Patch, ...]:
    """Return the patches that a release of Megatron-Core needs to train a NeMo 2 model."""
    have = release(megatron)
    return tuple(p for p in patches() if have >= release(p.megatron) and p.concerns(model_class))


def recipe_since(recipe: str) -> str | None:
    """Return the first NeMo that has a recipe; None if all that are known do."""
    found = _table()["recipes_since"].get(recipe)
    return None if found is None else str(found)


def field_since(path: str, nemo: str, megatron: str) -> str | None:
    """Return the release that brought a field of the recipe, if these releases are older; None if they have it."""
    for name, key, have in (
        ("Megatron-Core", "fields_since", megatron),
        ("NeMo", "nemo_fields_since", nemo),
    ):
        first = _table()[key].get(path)
        if first is not None and release(have) < release(first):
            return f"{name} {first}"
    return None


def judge(nemo: str, megatron: str) -> Verdict:
    """Return what is known of a pair of releases, by their first two numbers."""
    wanted = release(nemo)[:2], release(megatron)[:2]
    same = [pair for pair in pairs() if (release(pair.nemo)[:2], release(pair.megatron)[:2]) == wanted]
    for status, found in (
        ("works", [pair for pair in same if pair.proven]),
        ("fails", [pair for pair in same if pair.fails]),
        ("imports", same),
    ):
        if found:
            exact = [pair for pair in found if (pair.nemo, pair.megatron) == (nemo, megatron)]
            return Verdict(status=status, pair=(exact or found)[0])
    return Verdict(status="unknown")


def nearest_proven(nemo: str, megatron: str) -> Pair:
    """Return the proven pair whose minor release of NeMo, then of Megatron-Core, is nearest; then their patches."""
    wanted = _numbers(nemo), _numbers(megatron)

    def distance(pair: Pair) -> list[int]:
        have = _numbers(pair.nemo), _numbers(pair.megatron)
        minors = [abs(100 * (h[0] - w[0]) + h[1] - w[1]) for h, w in zip(have, wanted, strict=True)]
        return minors + [abs(h[2] - w[2]) for h, w in zip(have, wanted, strict=True)]

    return min((pair for pair in pairs() if pair.proven), key=distance)


def _numbers(text: str) -> tuple[int, int, int]:
    first, second, third = (*release(text), 0, 0, 0)[:3]
    return first, second, third
