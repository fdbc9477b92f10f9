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

from nemolaunch.errors import NemolaunchError
from nemolaunch.observe.report.charts import drawn_charts
from nemolaunch.observe.report.frame import body
from nemolaunch.observe.report.run_page import RunPage, run_pages
from nemolaunch.system.atomic_files import write_text


def write_report(folders: list[Path], output: Path) -> list[RunPage]:
    """Draw the runs into one page at `output`, whole or not at all. Returns what was read.

    Raises:
        NemolaunchError: a folder is no run, or the page cannot be written.
    """
    pages = run_pages(folders)
    try:
        write_text(output, render(pages))
    except OSError as error:
        raise NemolaunchError(f"-o {output} cannot be written: {error.strerror}") from None
    return pages


def render(pages: list[RunPage]) -> str:
    """The page as text."""
    runs = [page.data for page in pages]
    charts = drawn_charts(runs)
    return Template(_asset("page.html")).substitute(
        title=html.escape(f"{', '.join(page.name for page in pages)} – run report"),
        style=_asset("uPlot.min.css") + _asset("page.css"),
        body=body(pages, charts),
        version=version("nemolaunch"),
        date=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        # "<" would let a text in the data end the script element
        data=json.dumps(
            {"runs": runs, "charts": charts}, allow_nan=False, ensure_ascii=False, separators=(",", ":")
        ).replace("<", "\\u003c"),
        library=_asset("uPlot.iife.min.js"),
        script=_asset("page.js"),
    )


def _asset(name: str) -> str:
    return (resources.files("nemolaunch.observe.report") / "page" / name).read_text(encoding="utf-8")


def default_output(folders: list[Path]) -> Path:
    """The run's own folder for one run, the current folder for several."""
    return folders[0] / "report.html" if len(folders) == 1 else Path(os.getcwd()) / "report.html"
