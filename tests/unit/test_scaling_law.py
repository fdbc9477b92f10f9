"""Scaling laws: known parameters come back, too few runs are said to be too few, predictions lie where they should.

The known parameters are published ones: equation 10 of Hoffmann et al. (2022, arXiv 2203.15556) and the new fit of
Besiroglu et al. (2024, arXiv 2404.10102).
"""

from __future__ import annotations

import math
import random

import pytest

from nemolaunch.errors import NemolaunchError
from nemolaunch.sweeps.fit import fit
from nemolaunch.sweeps.law import Sample, law_of

HOFFMANN = (1.69, 406.4, 0.34, 410.7, 0.28)
BESIROGLU = (1.8172, 482.01, 0.3478, 2085.43, 0.3658)
WEIGHTS = (70e6, 150e6, 400e6, 1e9, 3e9, 7e9, 16e9)
TOKENS = (2e9, 8e9, 3e10, 1e11, 3e11)
CHINCHILLA = (70e9, 1.4e12)


def grid(law: tuple[float, ...], noise: float = 0.0) -> list[Sample]:
    draw = random.Random(1)
    return [
        Sample(n, d, law_of("full", law, n, d) * math.exp(draw.gauss(0, noise)))
        for n in WEIGHTS
        for d in TOKENS
    ]


@pytest.mark.parametrize("law", [HOFFMANN, BESIROGLU], ids=["hoffmann", "besiroglu"])
def test_published_laws_are_recovered(law: tuple[float, ...]) -> None:
    found = fit(grid(law), resamples=2)
    assert found.kind == "full"
    assert [p.value for p in found.parameters.values()] == pytest.approx(law, rel=1e-4)


def test_the_fit_is_that_of_least_squares_where_the_huber_loss_is_quadratic() -> None:
    """With deviations far below its delta, the Huber loss is least squares, which scipy's other solver minimises."""
    import numpy as np
    from scipy.optimize import least_squares

    samples = grid(BESIROGLU, noise=1e-5)
    n, d, y = (np.array([getattr(s, name) for s in samples]) for name in ("weights", "tokens", "loss"))

    def residuals(v: np.ndarray) -> np.ndarray:
        e, a, alpha, b, beta = v
        return (np.log(np.exp(e) + np.exp(a) / n**alpha + np.exp(b) / d**beta) - np.log(y)) * 1e4

    begin = [math.log(1.8), math.log(500), 0.35, math.log(2000), 0.36]
    e, a, alpha, b, beta = least_squares(
        residuals, begin, x_scale="jac", xtol=1e-15, ftol=1e-15, gtol=1e-15
    ).x
    found = [p.value for p in fit(samples, resamples=2).parameters.values()]
    assert found == pytest.approx([math.exp(e), math.exp(a), alpha, math.exp(b), beta], rel=1e-4)


def test_intervals_hold_the_truth_and_the_larger_run() -> None:
    found = fit(grid(BESIROGLU, noise=0.004), resamples=100)
    for interval, truth in zip(found.parameters.values(), BESIROGLU, strict=True):
        assert interval.holds(truth), (interval, truth)
    expected, truth = found.predict(*CHINCHILLA), law_of("full", BESIROGLU, *CHINCHILLA)
    assert expected.holds(truth)
    assert expected.low is not None
    assert expected.high is not None
    assert 0.001 < expected.high / expected.low - 1 < 0.1
    inner = found.predict(*CHINCHILLA, with_noise=False)
    assert inner.low is not None
    assert expected.low < inner.low
    assert found.deviation == pytest.approx(0.004, rel=0.4)


def test_constant_tokens_per_weight_give_a_law_of_one_variable() -> None:
    sizes = (6e7, 2e8, 4e8, 6e8, 1.1e9)
    samples = [Sample(n, 22 * n, law_of("full", BESIROGLU, n, 22 * n)) for n in sizes]
    found = fit(samples, resamples=20)
    assert found.kind == "one"
    assert "22 tokens per weight" in found.choice.reason
    assert "--tokens-per-param" in found.choice.reason
    assert list(found.parameters) == ["E", "C", "gamma"]
    assert found.at(7e9, 22 * 7e9) == pytest.approx(law_of("full", BESIROGLU, 7e9, 22 * 7e9), rel=0.005)


def test_as_many_runs_as_parameters_have_no_interval() -> None:
    samples = [Sample(n, 22 * n, law_of("one", (1.8, 1000, 0.35), n, 22 * n)) for n in (6e7, 2e8, 6e8)]
    found = fit(samples)
    assert [p.value for p in found.parameters.values()] == pytest.approx([1.8, 1000, 0.35], rel=1e-3)
    assert found.deviation is None
    assert found.parameters["E"].low is None
    assert found.predict(1e9, 22e9).holds(2.0) is None


def test_other_lengths_of_too_few_runs_are_not_enough_for_five_parameters() -> None:
    samples = [Sample(6e7, 1e9, 4.0), Sample(2e8, 9e9, 3.2), Sample(6e8, 2e9, 3.1), Sample(6e8, 1e10, 2.9)]
    found = fit(samples, resamples=2)
    assert found.kind == "one"
    assert "need 5 pairs" in found.choice.reason


@pytest.mark.parametrize(
    ("samples", "why"),
    [
        ([], "0 finished runs of 0 sizes, too few"),
        ([Sample(1e8, 1e9, 3.0), Sample(2e8, 2e9, 2.9)], "2 finished runs of 2 sizes, too few"),
        ([Sample(1e8, 1e9, 3.0)] * 4, "4 finished runs of 1 size, too few"),
        ([Sample(1e8, 1e9, math.nan, "run-a")], "run-a has 1e+08 weights"),
    ],
)
def test_too_few_runs_are_refused(samples: list[Sample], why: str) -> None:
    with pytest.raises(NemolaunchError) as caught:
        fit(samples)
    assert why in str(caught.value)
