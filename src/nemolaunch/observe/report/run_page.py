"""One run's part of the report, made from its folder in a process of its own where runs are many and long."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.errors import NemolaunchError
from nemolaunch.observe.failure import error_records, failure
from nemolaunch.observe.reader import read_history
from nemolaunch.observe.report.charts import run_data
from nemolaunch.observe.report.headline import Figure, headline, state
from nemolaunch.observe.report.sections import saved_checkpoints, sections
from nemolaunch.planning import Plan
from nemolaunch.run.folder import RunDir

POINTS = 2000  # of a line, for a single run
LEAST_POINTS = 800
MANY_BYTES = 50_000_000  # from here on several files are read in several processes


@dataclass(frozen=True, kw_only=True)
class RunPage:
    """What the page shows of one run: plain values, of which the templates make HTML.

    Attributes:
        last_time: Unix seconds of the last row, None for a run that has written nothing.
        progress: share of the steps that are done, None once it has finished.
        failure: the first failed rank's own words, None where none has failed.
        figures: headline figures.
        sections: values of its sections, by their id.
        data: what the page's script draws.
    """

    name: str
    state: str
    plan: Plan | None
    last_time: float | None
    progress: float | None
    failure: str | None
    figures: tuple[Figure, ...]
    sections: dict[str, Any]
    data: dict[str, Any]


def run_page(folder: Path, name: str, points: int) -> RunPage:
    """Read a run's folder.

    Raises:
        NemolaunchError: it is no run folder.
    """
    history = read_history(folder, name)
    current = state(history)
    over = current == "finished"
    saved = saved_checkpoints(history.run)
    return RunPage(
        name=name,
        state=current,
        plan=history.plan,
        last_time=history.last_time,
        progress=min(1.0, history.last_step / history.max_steps) if history.max_steps and not over else None,
        failure=failure(history.run, 1).message if not over and error_records(history.run) else None,
        figures=tuple(headline(history, saved)),
        sections=sections(history, saved),
        data=run_data(history, points),
    )


def run_pages(folders: list[Path]) -> list[RunPage]:
    """Several runs, each under a name that tells it from the others.

    Raises:
        NemolaunchError: one is no run folder, or is named twice.
    """
    absolute = [folder.expanduser().absolute() for folder in folders]
    for folder in absolute:
        if absolute.count(folder) > 1:
            raise NemolaunchError(f"the run {folder} is named twice")
    names = names_of(absolute)
    points = max(LEAST_POINTS, POINTS * 2 // (len(absolute) + 1))
    every_points = [points] * len(absolute)
    if len(absolute) == 1 or sum(map(_size, absolute)) < MANY_BYTES:
        return list(map(run_page, absolute, names, every_points))
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    workers = min(len(absolute), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(pool.map(run_page, absolute, names, every_points))


def names_of(folders: list[Path]) -> list[str]:
    """The last parts of each path, as many as tell them all apart."""
    depth = 1
    while len({folder.parts[-depth:] for folder in folders}) < len(folders):
        depth += 1
    return ["/".join(folder.parts[-depth:]) for folder in folders]


def _size(folder: Path) -> int:
    try:
        return RunDir(folder).metrics.stat().st_size
    except OSError:
        return 0
