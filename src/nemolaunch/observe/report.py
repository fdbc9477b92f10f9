"""One page about one or several runs: a single HTML file that opens from disk without a network."""

from __future__ import annotations

import datetime
import html
import json
import os
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from string import Template
from typing import Any

from nemolaunch.errors import NemolaunchError
from nemolaunch.observe.history import History, evaluation_figures, read_histories
from nemolaunch.observe.sections import body
from nemolaunch.observe.series import Series, smoothed, smoothing_window, thinned
from nemolaunch.rundir import write_text

CHARTS: tuple[dict[str, Any], ...] = (
    {
        "id": "loss", "title": "Loss", "unit": "nats per token", "wide": True,
        "lines": [
            {"key": "loss", "label": "training", "look": "faint"},
            {"key": "loss_smoothed", "label": "training, smoothed"},
            {"key": "val_loss", "label": "validation", "look": "points"},
        ],
    },
    {
        "id": "lr", "title": "Learning rate", "unit": "", "zero": True,
        "lines": [{"key": "lr", "label": "learning rate"}],
    },
    {
        "id": "speed", "title": "Throughput", "unit": "tokens per second, all processes", "zero": True,
        "lines": [{"key": "tokens_per_s", "label": "tokens/s"}],
    },
    {
        "id": "norm", "title": "Gradient norm", "unit": "before clipping", "zero": True,
        "lines": [{"key": "grad_norm", "label": "gradient norm"}],
    },
    {
        "id": "step-time", "title": "Step time", "unit": "seconds", "zero": True,
        "lines": [
            {"key": "step_time_max_s", "label": "longest", "look": "faint"},
            {"key": "step_time_s", "label": "mean"},
            {"key": "data_wait_s", "label": "waiting for data"},
        ],
    },
    {
        "id": "compute", "title": "Compute", "unit": "TFLOP/s per process", "zero": True,
        "lines": [
            {"key": "tflops_per_gpu", "label": "full attention counted"},
            {"key": "tflops_per_gpu_causal", "label": "causal half counted"},
        ],
    },
    {
        "id": "mfu", "title": "Model FLOPs utilisation", "unit": "share of the GPU's peak", "zero": True,
        "lines": [
            {"key": "mfu", "label": "full attention counted"},
            {"key": "mfu_causal", "label": "causal half counted"},
        ],
    },
    {
        "id": "memory", "title": "Peak memory", "unit": "GiB, first rank", "zero": True,
        "lines": [{"key": "memory_peak_gib", "label": "peak memory"}],
    },
    {
        "id": "perplexity", "title": "Evaluated perplexity", "unit": "per token",
        "lines": [{"key": "eval_perplexity", "label": "perplexity"}],
    },
)  # fmt: skip


def write_report(folders: list[Path], output: Path) -> list[History]:
    """Draw the runs into one page at `output`, whole or not at all. Returns what was read.

    Raises:
        NemolaunchError: a folder is no run, or the page cannot be written.
    """
    histories = read_histories(folders)
    page = render(histories)
    try:
        write_text(output, page)
    except OSError as error:
        raise NemolaunchError(f"-o {output} cannot be written: {error.strerror}") from None
    return histories


def render(histories: list[History]) -> str:
    """The page as text."""
    runs = [_run_data(history) for history in histories]
    drawn = [chart for chart in CHARTS if any(_has(run, chart) for run in runs)]
    drawn += _benchmark_charts(runs)
    data = {"runs": runs, "charts": drawn}
    names = ", ".join(history.name for history in histories)
    return Template(_asset("page.html")).substitute(
        title=html.escape(f"{names} – run report"),
        style=_asset("uPlot.min.css") + _asset("page.css"),
        body=body(histories, drawn),
        version=version("nemolaunch"),
        date=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        # "<" would let a text in the data end the script element
        data=json.dumps(data, allow_nan=False, ensure_ascii=False).replace("<", "\\u003c"),
        library=_asset("uPlot.iife.min.js"),
        script=_asset("page.js"),
    )


def _asset(name: str) -> str:
    return (resources.files("nemolaunch.observe") / "page" / name).read_text(encoding="utf-8")


def _has(run: dict[str, Any], chart: dict[str, Any]) -> bool:
    return any(line["key"] in run["series"] for line in chart["lines"])


def _run_data(history: History) -> dict[str, Any]:
    keys = {line["key"] for chart in CHARTS for line in chart["lines"]}
    keys |= {key for row in history.evaluations for key in evaluation_figures(row) if " " in key}
    series = {key: _points(thinned(s)) for key, s in history.series.items() if key in keys}
    if "memory_peak_bytes" in history.series:
        steps, values = _points(thinned(history.series["memory_peak_bytes"]))
        series["memory_peak_gib"] = [steps, [float(f"{value / 2**30:.6g}") for value in values]]
    loss = history.series.get("loss")
    if loss:
        series["loss_smoothed"] = _points(thinned(smoothed(loss)))
    return {
        "name": history.name,
        "tokens_per_step": history.plan.tokens_per_step if history.plan else None,
        "smoothing": smoothing_window(loss) if loss else 0,
        "series": series,
        "elapsed": _points(thinned(history.elapsed, 500)),
        "marks": [{"step": mark.step, "kind": mark.kind, "text": mark.text} for mark in history.marks],
    }


def _benchmark_charts(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One chart a benchmark: series named `TASK METRIC`."""
    names = dict.fromkeys(key for run in runs for key in run["series"] if " " in key)
    by_task: dict[str, list[dict[str, Any]]] = {}
    for name in names:
        task, _, metric = name.partition(" ")
        by_task.setdefault(task, []).append({"key": name, "label": metric})
    return [
        {"id": f"task-{i}", "title": task, "unit": "evaluated", "lines": lines}
        for i, (task, lines) in enumerate(by_task.items())
    ]


def _points(series: Series) -> list[list[float]]:
    return [list(series.steps), [float(f"{value:.6g}") for value in series.values]]


def default_output(folders: list[Path]) -> Path:
    """The run's own folder for one run, the current folder for several."""
    return folders[0] / "report.html" if len(folders) == 1 else Path(os.getcwd()) / "report.html"
