"""Write the report: a single self-contained HTML file that needs no network."""

from __future__ import annotations

import datetime
import os
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemolaunch.errors import NemolaunchError
from nemolaunch.observe import units
from nemolaunch.observe.report.charts import drawn_charts
from nemolaunch.observe.report.comparison import flag_differences, headline_table
from nemolaunch.observe.report.run_page import RunPage, run_pages
from nemolaunch.observe.report.sections import severity
from nemolaunch.system.atomic_files import write_text
from nemolaunch.system.control_characters import escaped

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


def write_report(folders: list[Path], output: Path) -> list[RunPage]:
    """Write a report about the runs to `output`, atomically. Return the values it shows.

    Raises:
        NemolaunchError: a folder is not a run folder, or the page cannot be written.
    """
    pages = run_pages(folders)
    try:
        write_text(output, render(pages))
    except OSError as error:
        raise NemolaunchError(f"cannot write -o {output}: {error.strerror}") from None
    return pages


def default_output(folders: list[Path]) -> Path:
    """Return `report.html` in the run folder for one run, in the current folder for several."""
    return folders[0] / "report.html" if len(folders) == 1 else Path(os.getcwd()) / "report.html"


def render(
    pages: list[RunPage], refresh_s: float | None = None, template: str | None = None, **more: Any
) -> str:
    """Render the page.

    Args:
        refresh_s: how often the page asks the server that it comes from whether it has changed; None for a file.
        template: by default that of one run, or of a comparison.
        more: what else the template needs.
    """
    runs = [page.data for page in pages]
    charts = drawn_charts(runs)
    made = _environment().get_template(template or ("run.html" if len(pages) == 1 else "comparison.html"))
    return made.render(
        pages=pages,
        sections=[key for key in pages[0].sections if any(page.sections[key] for page in pages)],
        headline_table=headline_table(pages),
        differences=flag_differences([page.plan for page in pages]),
        charts=charts,
        windows=sorted({2 * run["smoothing"] for run in runs if run["smoothing"]}),
        marked=any(run["marks"] for run in runs),
        data={"runs": runs, "charts": charts},
        refresh_s=refresh_s,
        version=version("nemolaunch"),
        now=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        **more,
    )


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("nemolaunch.observe.report"),
        autoescape=True,
        finalize=_without_controls,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["asset"] = _asset
    environment.filters |= {
        "duration": units.duration,
        "moment": _moment,
        "percent": lambda share, digits=2: f"{share:.{digits}%}",
        "severity": severity,
        "short_time": units.short_time,
        "size": units.size,
        "thousands": _thousands,
    }
    environment.policies["json.dumps_kwargs"] = {
        "allow_nan": False,
        "ensure_ascii": False,
        "separators": (",", ":"),
    }
    return environment


def _thousands(number: Any) -> Any:
    return f"{number:,}" if isinstance(number, (int, float)) else number


def _without_controls(value: Any) -> Any:
    return escaped(value) if type(value) is str else value


def _asset(name: str) -> Markup:
    """Read one of our style sheets or scripts, to be embedded unescaped."""
    from markupsafe import Markup

    return Markup((resources.files("nemolaunch.observe.report") / "page" / name).read_text(encoding="utf-8"))


def _moment(seconds: float) -> str:
    """Format Unix seconds as local date and time."""
    return datetime.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")
