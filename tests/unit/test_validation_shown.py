"""The losses of validation sets in what a run shows: terminal, status, report, model card."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from report_runs import start, step, write_run
from rich.console import Console

from nemolaunch.cli.commands import report, status
from nemolaunch.cli.views.run_progress import RunView
from nemolaunch.observe.reader import read_history
from nemolaunch.observe.report.charts import drawn_charts, run_data


def validated(number: int, **losses: float) -> dict[str, Any]:
    sets = {f"val_loss/{name}": loss for name, loss in losses.items()}
    return {"step": number, "time": 1000.5 + number, "val_loss": next(iter(losses.values())), **sets}


ROWS = [start(), step(1, 9.0), step(2, 8.0), validated(2, web=8.1, code=7.5), step(3, 7.0), step(4, 6.0)]
LATER = [validated(4, web=6.1, code=5.5)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", ROWS + LATER)


def lines_of(*folders: Path) -> dict[str, list[str]]:
    """Return the labels of the lines of each chart."""
    charts = drawn_charts([run_data(read_history(folder), 100) for folder in folders])
    return {chart["id"]: [line["label"] for line in chart["lines"]] for chart in charts}


def test_the_chart_of_losses_has_a_line_for_each_set(run: Path, tmp_path: Path) -> None:
    assert lines_of(run)["loss"] == ["raw", "smoothed", "validation, web", "validation, code"]
    plain = {**validated(4, web=6.5)}
    other = write_run(tmp_path / "other", [*ROWS[:3], {k: v for k, v in plain.items() if "/" not in k}])
    both = lines_of(run, other)["loss"]
    assert both == ["raw", "smoothed", "validation", "validation, web", "validation, code"]


def test_status_report_and_picture(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status.main([str(run)])
    assert "validation   web 6.100, code 5.500" in capsys.readouterr().out
    picture = run / "loss.svg"
    assert report.main([str(run), "-o", str(run / "page.html"), "--png", str(picture)]) == 0
    assert "web 6.100, code 5.500" in (run / "page.html").read_text()
    assert "validation, code" in picture.read_text()


def test_a_run_in_progress_shows_the_sets() -> None:
    view = RunView(10)
    for row in ROWS:
        view.take(row)
    console = Console(file=io.StringIO(), width=120)
    console.print(view)
    assert isinstance(console.file, io.StringIO)
    assert "validation web 8.100, code 7.500" in console.file.getvalue()
