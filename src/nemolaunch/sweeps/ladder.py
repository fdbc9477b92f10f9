"""Ladders: sizes of one family trained alike, the law that their losses follow, and larger runs that it predicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nemolaunch.errors import UsageError
from nemolaunch.sweeps.fit import Fit, Interval, fit
from nemolaunch.sweeps.law import ONE_VARIABLE, Sample, distinct
from nemolaunch.sweeps.planned import SweepPlan
from nemolaunch.sweeps.points import Axes, Point, grid, named, swept_field
from nemolaunch.sweeps.results import Results, RunResult, label, without_seed

LEAST_SIZES = len(ONE_VARIABLE)


@dataclass(frozen=True)
class Prediction:
    """What a law says about a run that it was not fitted to, and what the run reached.

    Attributes:
        name: of the run.
        expected: its loss, with the deviation that runs have from the law.
        reached: its loss, None if it has not finished.
    """

    name: str
    weights: float
    tokens: float
    expected: Interval
    reached: float | None = None

    @property
    def error(self) -> float | None:
        """The deviation of the prediction from what was reached, as a share of it."""
        return None if self.reached is None else self.expected.value / self.reached - 1

    @property
    def verdict(self) -> str:
        """Whether the prediction held, in words."""
        if self.reached is None or self.error is None:
            return "not trained yet"
        held = self.expected.holds(self.reached)
        where = "" if held is None else (", inside" if held else ", OUTSIDE") + " the 95 % interval"
        return f"reached {self.reached:.4f}: the prediction is off by {self.error:+.2%}{where}"


@dataclass(frozen=True)
class Ladder:
    """The law of a ladder and its predictions."""

    fit: Fit
    predictions: tuple[Prediction, ...]
    objective: str


def ladder_points(
    sizes: Sequence[str], tokens_per_param: Sequence[float], over: Axes, predict: Sequence[str]
) -> tuple[list[Point], list[Point]]:
    """Return the runs to train, and those to predict: each size at each number of tokens per weight.

    Args:
        sizes: names of models, or YAML files.
        over: other fields, all combinations of which are trained for each size.
        predict: names of models that are predicted with the most tokens per weight, and the first of other values.

    Raises:
        UsageError: no or too few sizes, or a field is named twice.
    """
    if len({*sizes}) < len(sizes) or {*sizes} & {*predict}:
        raise UsageError("--sizes and --predict must name different models")
    if not sizes:
        raise UsageError(
            "a ladder needs --sizes MODEL MODEL MODEL: models of one family, see `nemolaunch models`"
        )
    taken = {"model_name", "tokens_per_param", "max_steps", "max_tokens"} & {
        swept_field(n).name for n in over
    }
    if taken:
        raise UsageError(
            f"--sweep {', '.join(sorted(taken))}: --sizes and --tokens-per-param say this for a ladder"
        )
    axes: dict[str, Sequence[Any]] = {
        "model_name": list(sizes),
        "tokens_per_param": list(tokens_per_param),
        **over,
    }
    first = {name: values[0] for name, values in over.items()}
    targets = [{"model_name": m, "tokens_per_param": max(tokens_per_param), **first} for m in predict]
    points = grid(axes)
    every = named([*(p.changes for p in points), *targets])
    return every[: len(points)], every[len(points) :]


def check_family(plan: SweepPlan) -> None:
    """Refuse sizes whose losses no single law describes, too few of them, and predictions of smaller runs.

    Raises:
        UsageError: with the sizes.
    """
    runs = (*plan.runs, *plan.predicted)
    families = {run.plan.model: run.plan.model_row.recipe.model_class for run in runs}
    if len(set(families.values())) > 1:
        told = ", ".join(f"{model} ({family})" for model, family in families.items())
        raise UsageError(f"--sizes must be models of one family: {told}")
    fitted_runs, targets = [r for r in runs if not r.held_out], [r for r in runs if r.held_out]
    sizes = distinct([run.weights for run in fitted_runs if run.weights] or [1.0])
    if sizes < LEAST_SIZES:
        raise UsageError(
            f"--sizes has {sizes} of different weights: a law needs at least {LEAST_SIZES}, and 4 to have an interval"
        )
    largest = max(fitted_runs, key=lambda run: run.weights)
    for target in targets:
        if target.weights < largest.weights:
            raise UsageError(
                f"--predict {target.plan.model} has {target.weights:,} weights, fewer than {largest.plan.model} of "
                f"--sizes with {largest.weights:,}: a prediction is for a larger run"
            )


def samples_of(results: Results) -> list[Sample]:
    """Return the samples to fit: the finished runs with the best setting of each size and number of tokens.

    Runs of one size and length that differ in more than their seed are alternatives, of which the one with the lowest
    mean counts; each of its seeds is a sample.
    """
    groups: dict[tuple[int, float], dict[str, list[RunResult]]] = {}
    for run in results.ranked:
        settings = groups.setdefault((run.member.weights, run.tokens or run.member.tokens), {})
        settings.setdefault(repr(without_seed(run.member.changes)), []).append(run)
    best = [min(settings.values(), key=_mean) for settings in groups.values()]
    return [
        Sample(run.member.weights, run.tokens or run.member.tokens, run.value, run.name)
        for runs in sorted(best, key=lambda runs: (runs[0].member.weights, runs[0].member.tokens))
        for run in runs
        if run.value is not None
    ]


def _mean(runs: Sequence[RunResult]) -> float:
    return sum(run.value or 0.0 for run in runs) / len(runs)


def fitted(results: Results) -> Ladder:
    """Fit the law of a ladder, predict, and compare with the predicted runs that are there.

    Raises:
        NemolaunchError: too few runs have finished, or scipy is not installed.
    """
    law = fit(samples_of(results))
    targets = [run for run in results.runs if run.member.held_out]
    return Ladder(law, tuple(_prediction(law, run) for run in targets), results.objective)


def _prediction(law: Fit, run: RunResult) -> Prediction:
    tokens = run.tokens if run.is_finished and run.tokens else run.member.tokens
    expected = law.predict(run.member.weights, tokens)
    return Prediction(run.name, run.member.weights, tokens, expected, run.value if run.is_finished else None)


def undetermined(law: Fit) -> str:
    """Return which parameters the runs hardly determine, and what would; empty if they determine all."""
    if not law.undetermined:
        return ""
    return (
        f"the runs hardly determine {' and '.join(law.undetermined)}: predictions far beyond these sizes say little; "
        "more and larger --sizes, or --sweep seed=1,2, would"
    )


def ladder_lines(ladder: Ladder) -> list[str]:
    """Return the law, its parameters and its predictions as lines of text."""
    law = ladder.fit
    lines = [f"law: {label(ladder.objective)} = {law.formula}, from {len(law.samples)} runs"]
    if law.choice.reason:
        lines.append(f"  not E + A/N^alpha + B/D^beta: {law.choice.reason}")
    lines += [f"  {name:<6}{interval}" for name, interval in law.parameters.items()]
    if law.deviation is None:
        lines.append("  as many parameters as runs: no interval can be given; add a size or --sweep seed=1,2")
    else:
        lines.append(f"  in parentheses 95 % intervals; runs deviate from the law by {law.deviation:.2%}")
    if note := undetermined(law):
        lines.append(f"  {note}")
    for p in ladder.predictions:
        lines.append(f"prediction for {p.name}: {p.expected}; {p.verdict}")
    return lines


def ladder_values(ladder: Ladder) -> dict[str, Any]:
    """Return the law and its predictions in values that JSON can hold."""
    law = ladder.fit
    return {
        "formula": law.formula,
        "objective": ladder.objective,
        "reason": law.choice.reason,
        "parameters": {name: vars(interval) for name, interval in law.parameters.items()},
        "deviation": law.deviation,
        "samples": [vars(sample) for sample in law.samples],
        "predictions": [
            {**vars(p), "expected": vars(p.expected), "error": p.error, "verdict": p.verdict}
            for p in ladder.predictions
        ],
    }
