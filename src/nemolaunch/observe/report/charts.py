"""The charts of the report and the series each of them draws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from nemolaunch.data.validation_sets import accuracy_key, loss_key
from nemolaunch.observe.history import History, evaluation_figures
from nemolaunch.observe.planned_rate import planned_rates
from nemolaunch.observe.series import Series, smoothed, smoothing_window, thinned

PLANNED_LR = "lr_planned"  # a series computed from the plan
SMOOTHED = "_smoothed"  # suffix of series computed here


def _noisy(key: str, label: str) -> list[dict[str, str]]:
    """Return a faint line of the raw values and a smoothed one over it."""
    return [
        {"key": key, "label": "raw", "look": "faint"},
        {"key": key + SMOOTHED, "label": label, "look": "line"},
    ]


# look: `line`, `faint` (thin, in the background) or `points` (joined by a thin line)
CHARTS: tuple[dict[str, Any], ...] = (
    {
        "id": "loss", "title": "Loss", "unit": "nats per token", "wide": True,
        "lines": [
            *_noisy("loss", "smoothed"),
            {"key": "val_loss", "label": "validation", "look": "points"},
        ],
    },
    {
        "id": "masked", "title": "Masked-token accuracy", "unit": "share predicted correctly", "zero": True,
        "lines": [
            {"key": "val_masked_accuracy", "label": "validation", "look": "points"},
            {"key": "eval_masked_accuracy", "label": "evaluation", "look": "points"},
        ],
    },
    {
        "id": "lr", "title": "Learning rate", "unit": "", "zero": True,
        "lines": [
            {"key": PLANNED_LR, "label": "planned", "look": "faint"},
            {"key": "lr", "label": "learning rate", "look": "line"},
        ],
    },
    {
        "id": "norm", "title": "Gradient norm", "unit": "before clipping", "zero": True,
        "lines": _noisy("grad_norm", "smoothed"),
    },
    {
        "id": "speed", "title": "Throughput", "unit": "tokens per second, all processes", "zero": True,
        "lines": _noisy("tokens_per_s", "smoothed"),
    },
    {
        "id": "step-time", "title": "Step time", "unit": "seconds", "zero": True,
        "lines": [
            {"key": "step_time_s", "label": "raw", "look": "faint"},
            {"key": "step_time_p50_s", "label": "median", "look": "line"},
            {"key": "step_time_p95_s", "label": "p95", "look": "line"},
            {"key": "data_wait_s", "label": "data wait", "look": "line"},
        ],
    },
    {
        "id": "mfu", "title": "Model FLOPs utilisation", "unit": "", "zero": True,
        "lines": [
            *_noisy("mfu", "full attention"),
            {"key": "mfu_causal" + SMOOTHED, "label": "causal half", "look": "line"},
        ],
    },
    {
        "id": "compute", "title": "Compute", "unit": "TFLOP/s per process", "zero": True,
        "lines": [
            *_noisy("tflops_per_gpu", "full attention"),
            {"key": "tflops_per_gpu_causal" + SMOOTHED, "label": "causal half", "look": "line"},
        ],
    },
    {
        "id": "memory", "title": "Peak memory", "unit": "GiB, first rank", "zero": True,
        "lines": [{"key": "memory_peak_gib", "label": "peak memory", "look": "line"}],
    },
    {
        "id": "checkpoint", "title": "Checkpoint saving", "unit": "seconds training was blocked", "zero": True,
        "lines": [{"key": "checkpoint_s", "label": "seconds", "look": "points"}],
    },
    {
        "id": "perplexity", "title": "Perplexity", "unit": "per token, evaluated checkpoints",
        "lines": [{"key": "eval_perplexity", "label": "perplexity", "look": "points"}],
    },
    {
        "id": "bits", "title": "Bits per byte", "unit": "comparable across tokenizers",
        "lines": [{"key": "eval_bits_per_byte", "label": "bits per byte", "look": "points"}],
    },
)  # fmt: skip
BY_SET = (loss_key(""), accuracy_key(""))
GIB = 2**30


def drawn_charts(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the charts that have data, including one for each benchmark."""
    keys = list(dict.fromkeys(key for run in runs for key in run["series"]))
    found = []
    for chart in CHARTS:
        wanted = [each for line in chart["lines"] for each in _with_sets(line, keys, runs)]
        lines = [line for line in wanted if line["key"] in keys]
        if lines:
            found.append({**chart, "lines": lines})
    return found + _benchmarks(runs)


def _with_sets(
    line: dict[str, str], keys: Sequence[str], runs: Sequence[dict[str, Any]]
) -> Iterator[dict[str, str]]:
    """Yield a line of validation, unless it only repeats that of the first validation set, and those of the sets."""
    base = line["key"]
    names = [key for key in keys if key.startswith(base + "/")]
    repeated = names and all(
        any(run["series"].get(name) == run["series"].get(base) for name in names) for run in runs
    )
    if not repeated:
        yield line
    for name in names:
        yield {**line, "key": name, "label": f"{line['label']}, {name.removeprefix(base + '/')}"}


def _benchmarks(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a chart for each benchmark; its series are named `TASK METRIC`."""
    names = dict.fromkeys(key for run in runs for key in run["series"] if " " in key)
    by_task: dict[str, list[dict[str, Any]]] = {}
    for name in names:
        task, _, metric = name.partition(" ")
        by_task.setdefault(task, []).append({"key": name, "label": metric, "look": "points"})
    return [
        {"id": f"task-{i}", "title": task, "unit": "benchmark", "lines": lines}
        for i, (task, lines) in enumerate(by_task.items())
    ]


def run_data(history: History, points: int) -> dict[str, Any]:
    """Return the data of a run for the page's script, with at most about `points` points per line."""
    keys = {line["key"] for chart in CHARTS for line in chart["lines"]}
    keys |= {key for key in history.series if key.startswith(BY_SET)}
    keys |= {key for row in history.evaluations for key in evaluation_figures(row) if " " in key}
    series = {key: _points(thinned(s, points)) for key, s in history.series.items() if key in keys}
    if "memory_peak_bytes" in history.series:
        steps, values = _points(thinned(history.series["memory_peak_bytes"], points))
        series["memory_peak_gib"] = [steps, [_rounded(value / GIB) for value in values]]
    if "lr" in history.series and (planned := planned_rates(history.plan)):
        series[PLANNED_LR] = _points(planned)
    loss = history.series.get("loss")
    for key in keys:
        noisy = history.series.get(key.removesuffix(SMOOTHED))
        if key.endswith(SMOOTHED) and noisy:
            series[key] = _points(thinned(smoothed(noisy), points // 2))
    return {
        "name": history.name,
        "tokens": _points(thinned(history.series["tokens"], 500)) if "tokens" in history.series else None,
        "smoothing": smoothing_window(loss) if loss else 0,
        "series": series,
        "elapsed": _points(thinned(history.elapsed, 500)),
        "marks": [{"step": mark.step, "kind": mark.kind, "text": mark.text} for mark in history.marks],
    }


def _points(series: Series) -> list[list[float]]:
    return [list(series.steps), [_rounded(value) for value in series.values]]


def _rounded(value: float) -> float:
    """Round to six digits, the precision that a chart can show."""
    return float(f"{value:.6g}")
