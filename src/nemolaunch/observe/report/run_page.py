"""The report's values of each run, read from the run folders, in parallel if there is much to read."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemolaunch.errors import NemolaunchError
from nemolaunch.observe.ending import FAILED, ending
from nemolaunch.observe.reader import read_history
from nemolaunch.observe.report.charts import run_data
from nemolaunch.observe.report.headline import Figure, headline, state
from nemolaunch.observe.report.sections import saved_checkpoints, sections
from nemolaunch.planning import Plan
from nemolaunch.run.folder import RunDir
from nemolaunch.run.labels import Labels, labels_of

POINTS = 2000  # per line, for a single run
MIN_POINTS = 800
PARALLEL_BYTES = 50_000_000  # total size of the metrics from which on processes pay off


@dataclass(frozen=True, kw_only=True)
class RunPage:
    """The values of one run that the templates turn into HTML.

    Attributes:
        place: the last parts of the run folder's path.
        last_time: Unix seconds of the last row, None if nothing was recorded.
        progress: completed share of the steps, None once the run has finished.
        failure: the message of the rank that failed first, None if no rank failed.
        figures: headline figures.
        sections: values of the sections, by section id.
        data: input of the page's script.
        labels: tags and notes that a user gave the run.
    """

    name: str
    place: str
    state: str
    plan: Plan | None
    last_time: float | None
    progress: float | None
    failure: str | None
    figures: tuple[Figure, ...]
    sections: dict[str, Any]
    data: dict[str, Any]
    labels: Labels = field(default_factory=Labels)


def run_page(folder: Path, name: str, points: int) -> RunPage:
    """Read the values of one run.

    Raises:
        NemolaunchError: the folder is not a run folder.
    """
    history = read_history(folder, name)
    current = state(history)
    over, end = current == "finished", ending(history.run)
    saved = saved_checkpoints(history.run)
    return RunPage(
        name=name,
        place="/".join(history.run.root.parts[-2:]).lstrip("/"),
        state=current,
        plan=history.plan,
        last_time=history.last_time,
        progress=min(1.0, history.last_step / history.max_steps) if history.max_steps and not over else None,
        failure=end.detail if end and end.state == FAILED and not over else None,
        figures=tuple(headline(history, saved)),
        sections=sections(history, saved),
        data=run_data(history, points),
        labels=labels_of(history.run),
    )


def run_pages(folders: list[Path]) -> list[RunPage]:
    """Read several runs, each with a distinct name.

    Raises:
        NemolaunchError: a folder is not a run folder, or is given twice.
    """
    absolute = [folder.expanduser().absolute() for folder in folders]
    for folder in absolute:
        if absolute.count(folder) > 1:
            raise NemolaunchError(f"the run {folder} is given twice")
    names = names_of(absolute)
    points = max(MIN_POINTS, POINTS * 2 // (len(absolute) + 1))
    every_points = [points] * len(absolute)
    if len(absolute) == 1 or sum(map(_size, absolute)) < PARALLEL_BYTES:
        return list(map(run_page, absolute, names, every_points))
    from concurrent.futures import ProcessPoolExecutor

    from nemolaunch.system.worker_pool import CONTEXT

    workers = min(len(absolute), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=CONTEXT) as pool:
        return list(pool.map(run_page, absolute, names, every_points))


def names_of(folders: list[Path]) -> list[str]:
    """Return the last parts of each path, as many as it takes to make them distinct."""
    depth = 1
    while len({folder.parts[-depth:] for folder in folders}) < len(folders):
        depth += 1
    return ["/".join(folder.parts[-depth:]) for folder in folders]


def _size(folder: Path) -> int:
    try:
        return RunDir(folder).metrics.stat().st_size
    except OSError:
        return 0
