"""Scaling laws: the loss of a model by its weights and the tokens it is trained on.

The law of Hoffmann et al. (2022, arXiv 2203.15556, section 3.3) is L(N, D) = E + A / N^alpha + B / D^beta. If D follows
from N, as with constant tokens per weight, only L(N) = E + C / N^gamma can be told from the data.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from nemolaunch.errors import NemolaunchError
from nemolaunch.system.quantities import counted

FULL = ("E", "A", "alpha", "B", "beta")
ONE_VARIABLE = ("E", "C", "gamma")
NAMES = {"full": FULL, "one": ONE_VARIABLE}
FORMULAS = {"full": "E + A/N^alpha + B/D^beta", "one": "E + C/N^gamma"}
# Of log D around a line through log N: less is no variation of its own. 0.2 is a factor of 1.2 to both sides
LEAST_OWN_VARIATION = 0.2
ALIKE = 0.05  # sizes whose logarithms differ by less are one size


@dataclass(frozen=True)
class Sample:
    """A trained run: weights, tokens, loss in nats per token."""

    weights: float
    tokens: float
    loss: float
    name: str = ""


@dataclass(frozen=True)
class Choice:
    """Which law samples can identify, and why not the full one."""

    kind: str
    reason: str = ""


def law_of(kind: str, values: Sequence[float], weights: float, tokens: float) -> float:
    """Return the loss that a law with these parameters, in the order of `NAMES`, gives."""
    if kind == "one":
        e, c, gamma = values
        return e + c / weights**gamma
    e, a, alpha, b, beta = values
    return e + a / weights**alpha + b / tokens**beta


def distinct(values: Sequence[float]) -> int:
    """Return the number of values that differ by more than a twentieth."""
    logs = sorted(map(math.log, values))
    return 1 + sum(later - earlier > ALIKE for earlier, later in itertools.pairwise(logs))


def identifiable(samples: Sequence[Sample]) -> Choice:
    """Return the law with the most parameters that the samples identify.

    Raises:
        NemolaunchError: they are too few for either, with what is missing.
    """
    for sample in samples:
        if not (sample.weights > 0 and sample.tokens > 0 and 0 < sample.loss < math.inf):
            raise NemolaunchError(
                f"{sample.name or 'a run'} has {sample.weights:g} weights, {sample.tokens:g} tokens and a loss of "
                f"{sample.loss:g}; a law needs positive numbers"
            )
    sizes, lengths = (
        distinct([s.weights for s in samples] or [1.0]),
        distinct([s.tokens for s in samples] or [1.0]),
    )
    if len(samples) < len(ONE_VARIABLE) or sizes < len(ONE_VARIABLE):
        raise NemolaunchError(
            f"{counted(len(samples), 'finished run')} of {counted(sizes if samples else 0, 'size')}, too few to fit a "
            "law: E, C and gamma need runs of at least 3 sizes, and 4 to say how certain they are; add --sizes"
        )
    pairs = {(round(math.log(s.weights) / ALIKE), round(math.log(s.tokens) / ALIKE)) for s in samples}
    if own_variation(samples) < LEAST_OWN_VARIATION:
        ratios = [s.tokens / s.weights for s in samples]
        same = f"all runs have about {statistics.fmean(ratios):,.3g} tokens per weight" if distinct(ratios) == 1 else (
            "the tokens of the runs follow from their weights"
        )  # fmt: skip
        return Choice(
            "one",
            f"{same}, so that A, alpha, B and beta cannot be told apart; vary --tokens-per-param to do so",
        )
    if len(pairs) < len(FULL) or lengths < len(ONE_VARIABLE):
        return Choice(
            "one",
            f"{len(pairs)} different pairs of weights and tokens, with {lengths} numbers of tokens, are too few for "
            "the five parameters E, A, alpha, B and beta, which need 5 pairs, 3 sizes and 3 numbers of tokens",
        )
    return Choice("full")


def own_variation(samples: Sequence[Sample]) -> float:
    """Return the standard deviation of log D around its line through log N: 0 if D is a power of N."""
    x, y = [math.log(s.weights) for s in samples], [math.log(s.tokens) for s in samples]
    mx, my = statistics.fmean(x), statistics.fmean(y)
    across = sum((a - mx) ** 2 for a in x)
    slope = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / across if across else 0.0
    rest = [b - my - slope * (a - mx) for a, b in zip(x, y, strict=True)]
    return math.sqrt(statistics.fmean([r * r for r in rest]))
