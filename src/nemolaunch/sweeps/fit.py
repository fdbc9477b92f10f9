"""Fitting a scaling law: Huber loss of the logarithm, L-BFGS from many starts, intervals by bootstrap. Needs scipy."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nemolaunch.errors import NemolaunchError
from nemolaunch.sweeps.law import FORMULAS, NAMES, Choice, Sample, identifiable, law_of
from nemolaunch.system.installation import how_to_install

DELTA = 1e-3  # of the Huber loss (Hoffmann et al. 2022, section 3.3)
RESAMPLES = 400
COEFFICIENTS = ("A", "B", "C")  # whose size means nothing without their exponent
DETERMINED = 0.05  # a parameter whose interval reaches below this share of it may as well be 0
CONFIDENCE = 0.95
# Where L-BFGS stops: for the fit, and for the samples of the bootstrap, which start from it
EXACT = {"maxiter": 5000, "maxfun": 20000, "ftol": 1e-15, "gtol": 1e-9}
CLOSE = {"maxiter": 500, "maxfun": 1000, "ftol": 1e-9, "gtol": 1e-6}
BEST_STARTS = 12  # of the grid, from which L-BFGS runs; the others start worse
# Logarithms of E, A and B, and the exponents, that starts combine (Hoffmann et al. 2022, appendix D.3)
LOG_E, LOG_AB, EXPONENTS = (
    (-1.0, -0.5, 0.0, 0.5, 1.0),
    (0.0, 5.0, 10.0, 15.0, 20.0, 25.0),
    (0.1, 0.3, 0.5, 1.0, 1.5),
)


@dataclass(frozen=True)
class Interval:
    """A value and where it lies with 95 % confidence; without ends if there are too few samples to say."""

    value: float
    low: float | None = None
    high: float | None = None

    def holds(self, value: float) -> bool | None:
        """Return whether a value lies in the interval; None if it has no ends."""
        return None if self.low is None or self.high is None else self.low <= value <= self.high

    def __str__(self) -> str:
        ends = (
            f" ({self.low:.4g} to {self.high:.4g})" if self.low is not None and self.high is not None else ""
        )
        return f"{self.value:.4g}{ends}"


@dataclass(frozen=True)
class Fit:
    """A fitted law.

    Attributes:
        parameters: by name, with intervals.
        deviation: root mean square of log(loss / law), with the degrees of freedom taken into account; None if the
            law goes through every sample.
        resamples: parameters of each bootstrap sample, and a residual of the logarithm for the noise of a new run.
    """

    choice: Choice
    samples: tuple[Sample, ...]
    parameters: dict[str, Interval]
    deviation: float | None
    resamples: tuple[tuple[tuple[float, ...], float], ...]

    @property
    def kind(self) -> str:
        """`full` or `one`, for one variable."""
        return self.choice.kind

    @property
    def formula(self) -> str:
        """The law as text."""
        return FORMULAS[self.kind]

    def at(self, weights: float, tokens: float) -> float:
        """Return the loss that the law gives."""
        return law_of(self.kind, [p.value for p in self.parameters.values()], weights, tokens)

    @property
    def undetermined(self) -> tuple[str, ...]:
        """E and the exponents that may as well be 0, for all that the samples say."""
        found = {name: p for name, p in self.parameters.items() if name not in COEFFICIENTS}
        return tuple(n for n, p in found.items() if p.low is not None and p.low < DETERMINED * p.value)

    def predict(self, weights: float, tokens: float, *, with_noise: bool = True) -> Interval:
        """Return the loss of a run that was not fitted, and where it lies with 95 % confidence.

        Args:
            with_noise: for one run, which deviates from the law as the fitted ones do; otherwise for the law itself.
        """
        found = [
            law_of(self.kind, values, weights, tokens) * math.exp(residual if with_noise else 0.0)
            for values, residual in self.resamples
        ]
        return Interval(self.at(weights, tokens), *_ends(found))


def fit(samples: Sequence[Sample], *, resamples: int = RESAMPLES, seed: int = 0) -> Fit:
    """Fit the law that the samples identify.

    The bootstrap resamples residuals, widened by sqrt(n / (n - p)): samples of a ladder are few and at chosen sizes, so
    that drawing among the samples themselves would often leave too few sizes.

    Raises:
        NemolaunchError: the samples are too few, or scipy is not installed.
    """
    return _fit(tuple(samples), resamples, seed)


@functools.lru_cache(maxsize=8)  # the terminal and the page show the same law
def _fit(samples: tuple[Sample, ...], resamples: int, seed: int) -> Fit:
    choice = identifiable(samples)
    np = _numpy()
    kind = choice.kind
    logs = np.log(np.array([[s.weights, s.tokens] for s in samples], dtype=float))
    # around their middle, so that the parameters of a term hardly depend on each other: a fifth of the iterations
    middle = logs.mean(axis=0)
    x = logs - middle
    y = np.log(np.array([s.loss for s in samples], dtype=float))
    best = _minimised(kind, x, y, _starts(kind, x, y, middle), EXACT)
    smooth = _log_law(kind, best, x)
    residuals, free = y - smooth, len(y) - len(NAMES[kind])
    found: list[tuple[tuple[float, ...], float]] = []
    if free > 0:
        wide = (residuals - residuals.mean()) * math.sqrt(len(y) / free)
        draw = np.random.default_rng(seed)
        for _ in range(resamples):
            again = _minimised(kind, x, smooth + draw.choice(wide, len(y)), [best], CLOSE)
            found.append((_parameters(kind, again, middle), float(draw.choice(wide))))
    values = _parameters(kind, best, middle)
    intervals = {
        name: Interval(value, *_ends([row[i] for row, _ in found]))
        for i, (name, value) in enumerate(zip(NAMES[kind], values, strict=True))
    }
    deviation = float(np.sqrt((residuals**2).sum() / free)) if free > 0 else None
    return Fit(choice, samples, intervals, deviation, tuple(found))


def _numpy() -> Any:
    try:
        import numpy
        import scipy.optimize  # noqa: F401
    except ImportError:
        raise NemolaunchError(f"fitting a scaling law needs scipy: {how_to_install('sweeps')}") from None
    return numpy


def _ends(values: Sequence[float]) -> tuple[float, float] | tuple[()]:
    """Return the ends of the middle 95 % of the values; nothing without values."""
    if not values:
        return ()
    np = _numpy()
    low, high = np.quantile(np.array(values), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


# Vectors of parameters: logarithms of E, A and B or of E and C, with the exponent after each but E. A term of the law
# is exp(logarithm - exponent * log x), so that parameters stay positive, and the logarithm of the law is a log-sum-exp.
# The `x` are relative to their middle.


def _terms(kind: str, vector: Any, x: Any) -> Any:
    np = _numpy()
    size = vector[1] - vector[2] * x[:, 0]
    rest = [vector[3] - vector[4] * x[:, 1]] if kind == "full" else []
    return np.stack([np.full(len(x), vector[0]), size, *rest])


def _log_law(kind: str, vector: Any, x: Any) -> Any:
    return _numpy().logaddexp.reduce(_terms(kind, vector, x), axis=0)


def _parameters(kind: str, vector: Any, middle: Any) -> tuple[float, ...]:
    """Return the parameters of the law, whose variables are not relative to their middle."""
    e, a, alpha, *rest = map(float, vector)
    found = (_exp(e), _exp(a + alpha * middle[0]), alpha)
    return (*found, _exp(rest[0] + rest[1] * middle[1]), rest[1]) if kind == "full" else found


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))


def _cost(vector: Any, kind: str, x: Any, y: Any) -> tuple[float, Any]:
    """Return the sum of the Huber losses, and its gradient.

    The sum, not the mean: L-BFGS stops by the size of the loss, which ended the fit of Hoffmann et al. too early
    (Besiroglu et al. 2024, arXiv 2404.10102).
    """
    np = _numpy()
    terms = _terms(kind, vector, x)
    smooth = np.logaddexp.reduce(terms, axis=0)
    rest = smooth - y
    small = np.abs(rest) <= DELTA
    cost = np.where(small, rest**2 / 2, DELTA * (np.abs(rest) - DELTA / 2)).sum()
    outer = np.clip(rest, -DELTA, DELTA) * np.exp(terms - smooth)  # derivative by each term
    gradient = [outer[0].sum(), outer[1].sum(), -(outer[1] * x[:, 0]).sum()]
    if kind == "full":
        gradient += [outer[2].sum(), -(outer[2] * x[:, 1]).sum()]
    return float(cost) / DELTA**2, np.array(gradient) / DELTA**2


def _starts(kind: str, x: Any, y: Any, middle: Any) -> list[Any]:
    """Return the best starting points of a grid."""
    np = _numpy()
    x = x + middle
    axes = [LOG_E, LOG_AB, EXPONENTS] + ([LOG_AB, EXPONENTS] if kind == "full" else [])
    grid = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=1)
    terms = [np.repeat(grid[:, :1], len(x), 1), grid[:, 1:2] - grid[:, 2:3] * x[:, 0]]
    terms += [grid[:, 3:4] - grid[:, 4:5] * x[:, 1]] if kind == "full" else []
    cost = np.minimum(np.abs(np.logaddexp.reduce(np.stack(terms), axis=0) - y), 1e3).sum(axis=1)
    best = grid[np.argsort(cost)[:BEST_STARTS]]
    best[:, 1] -= best[:, 2] * middle[0]
    if kind == "full":
        best[:, 3] -= best[:, 4] * middle[1]
    return list(best)


def _minimised(kind: str, x: Any, y: Any, starts: Sequence[Any], options: dict[str, Any]) -> Any:
    """Return the parameters with the lowest cost that L-BFGS finds from these starts."""
    from scipy.optimize import minimize

    found = [
        minimize(_cost, start, args=(kind, x, y), jac=True, method="L-BFGS-B", options=options)
        for start in starts
    ]
    return min(found, key=lambda result: result.fun).x
