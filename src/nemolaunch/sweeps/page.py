"""The page that compares the runs of a sweep: the report of several runs, with what only a sweep has above it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nemolaunch.errors import NemolaunchError
from nemolaunch.job import spec_of
from nemolaunch.observe.report.report import render
from nemolaunch.observe.report.run_page import run_pages
from nemolaunch.sweeps.folder import PAGE, run_dir
from nemolaunch.sweeps.ladder import Ladder, fitted, undetermined
from nemolaunch.sweeps.law import ALIKE, Sample
from nemolaunch.sweeps.results import Results, SeedGroup, label, results_of, summary
from nemolaunch.system.atomic_files import write_text

CURVE_POINTS = 60
WIDER, BEFORE = (
    1.3,
    1.08,
)  # the curve goes on beyond the largest run, and begins before the smallest, by these factors
MOST_CURVES = 20  # training curves on the page, of the best runs


def write_page(folder: Path, output: Path | None = None) -> Path:
    """Write the page of a sweep, `report.html` in its folder by default. Return its path.

    Raises:
        NemolaunchError: the folder is not that of a sweep, no run has started, or the page cannot be written.
    """
    results = results_of(folder)
    output = output or results.folder / PAGE
    started = [run for run in results.runs if run_dir(results.folder, run.name).plan.exists()]
    if not started:
        raise NemolaunchError(f"no run of {results.folder} has started, so there is nothing to compare")
    ranked = [run for run in results.ranked if run in started]
    shown = [*ranked, *(run for run in started if run not in ranked)][:MOST_CURVES]
    pages = run_pages([run_dir(results.folder, run.name).root for run in shown])
    try:
        write_text(output, render(pages, template="sweep.html", sweep=page_values(results, len(shown))))
    except OSError as error:
        raise NemolaunchError(f"cannot write -o {output}: {error.strerror}") from None
    return output


def page_values(results: Results, num_curves: int) -> dict[str, Any]:
    """Return what the template of a sweep shows."""
    ladder, why = _ladder(results)
    best = results.best
    return {
        "kind": results.record.kind,
        "name": results.folder.name,
        "summary": summary(results),
        "objective": label(results.objective),
        "best": None
        if best is None
        else {"name": best.name, "value": f"{best.value:.4f}", "flags": _flags(best.member.changes)},
        "seeds": [_seeds(group) for group in results.by_seed() if group.deviation is not None],
        "ladder": ladder,
        "why": why,
        "undetermined": undetermined(ladder.fit) if ladder else "",
        "hidden": len(results.runs) - num_curves,
        "data": {
            "axes": [_axis(results, name) for name in results.fields],
            "runs": [
                {
                    "name": run.name,
                    "values": {n: _plain(v) for n, v in run.member.changes.items()},
                    "result": run.value,
                }
                for run in results.runs
                if run.value is not None
            ],
            "objective": label(results.objective),
            "best": best.name if best else None,
            "curve": _curve(ladder) if ladder else None,
        },
    }


def _ladder(results: Results) -> tuple[Ladder | None, str]:
    """Return the law of a ladder; or none, and why."""
    if results.record.kind != "ladder":
        return None, ""
    try:
        return fitted(results), ""
    except NemolaunchError as error:
        return None, str(error)


def _flags(changes: dict[str, Any]) -> str:
    words = {n: f"{v:g}" if isinstance(v, float) else _plain(v) for n, v in changes.items()}
    return " ".join(f"{spec_of(name).flag} {word}" for name, word in words.items())


def _seeds(group: SeedGroup) -> dict[str, Any]:
    return {
        "flags": _flags(group.changes) or "all flags alike",
        "num": len(group.values),
        "mean": f"{group.mean:.4f}",
        "deviation": f"{group.deviation or 0.0:.4f}",
        "range": f"{min(group.values):.4f} – {max(group.values):.4f}",
    }


def _axis(results: Results, name: str) -> dict[str, Any]:
    """Return an axis of the parallel coordinates: numbers on a scale, logarithmic if they span it, else words."""
    values = [run.member.changes.get(name) for run in results.runs]
    numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    flag = spec_of(name).flag
    if len(numbers) == len(values):
        spans = min(numbers) > 0 and max(numbers) / min(numbers) >= 5
        return {"key": name, "flag": flag, "ticks": sorted({*numbers}), "log": bool(spans), "words": False}
    return {
        "key": name,
        "flag": flag,
        "ticks": list(dict.fromkeys(_plain(v) for v in values)),
        "log": False,
        "words": True,
    }


def _plain(value: Any) -> Any:
    """Return a value as the page shows it."""
    if value is None:
        return "not given"
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))
    if isinstance(value, str) and value.endswith((".yaml", ".yml")):
        return Path(value).name
    return str(value).lower() if isinstance(value, bool) else value


def _ratios(samples: Sequence[Sample]) -> list[float]:
    """Return the numbers of tokens per weight at which runs were trained, those that hardly differ once."""
    found = sorted(s.tokens / s.weights for s in samples)
    return [ratio for i, ratio in enumerate(found) if i == 0 or ratio > found[i - 1] * (1 + 2 * ALIKE)]


def _curve(ladder: Ladder) -> dict[str, Any]:
    """Return the law over the weights, for each number of tokens per weight, with its interval, and the runs."""
    law, samples = ladder.fit, ladder.fit.samples
    sizes = [s.weights for s in samples] + [p.weights for p in ladder.predictions]
    low, high = min(sizes) / BEFORE, max(sizes) * WIDER
    grid = [low * (high / low) ** (i / (CURVE_POINTS - 1)) for i in range(CURVE_POINTS)]
    lines = []
    for ratio in _ratios(samples) if law.kind == "full" else [samples[0].tokens / samples[0].weights]:
        found = [law.predict(n, n * ratio, with_noise=False) for n in grid]
        lines.append(
            {
                "label": f"{ratio:.3g} tokens per weight" if law.kind == "full" else law.formula,
                "x": grid,
                "y": [p.value for p in found],
                "low": [p.low for p in found],
                "high": [p.high for p in found],
            }
        )
    return {
        "lines": lines,
        "runs": [{"name": s.name, "x": s.weights, "y": s.loss} for s in samples],
        "predictions": [
            {"name": p.name, "x": p.weights, "y": p.expected.value, "low": p.expected.low, "high": p.expected.high,
             "reached": p.reached}
            for p in ladder.predictions
        ],
    }  # fmt: skip
