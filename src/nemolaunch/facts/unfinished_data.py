"""Runs of `nemolaunch tokenize` that are still filling a folder with training data, and the time they need."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from nemolaunch.data.unfinished import ENDING, PACE, PROGRESS, Pace, lock_name
from nemolaunch.facts.array_jobs import ArrayJobs, look_at_jobs
from nemolaunch.system import locks
from nemolaunch.system.json_files import read_json
from nemolaunch.system.plain_values import from_plain

LOOK_EVERY_S = 5.0
SAY_EVERY_S = 60.0


@dataclass(frozen=True)
class UnfinishedData:
    """A run that is not complete.

    Attributes:
        source: the path of `--dataset-dir` that it fills.
        folder: its work folder.
        name: of its output.
        share: how much of its input is done, from 0 to 1.
        left_s: the time it still needs at its present speed; None if that is not known.
        goes_on: whether a process or a Slurm job continues it, as far as that can be seen.
        jobs: those of Slurm that were submitted for it, unless a process on this or another machine has taken over.
    """

    source: str
    folder: str
    name: str
    share: float = 0.0
    left_s: float | None = None
    goes_on: bool = True
    jobs: ArrayJobs | None = None

    def __str__(self) -> str:
        left = "" if self.left_s is None else f", about {_duration(self.left_s)} left"
        return f"{self.name} in {os.path.dirname(self.folder)} ({self.share:.0%} done{left})"


def look_at_unfinished(paths: Iterable[str]) -> tuple[UnfinishedData, ...]:
    """Return the unfinished runs that fill these folders, or write these prefixes."""
    found: dict[str, UnfinishedData] = {}
    for path in paths:
        absolute = Path(os.path.abspath(os.path.expanduser(path)))
        if absolute.is_dir():
            inside = [*absolute.glob(f"*{ENDING}"), *absolute.glob(f"preprocessed/*{ENDING}")]
        else:
            inside = [
                folder
                for folder in absolute.parent.glob(f"*{ENDING}")
                if absolute.name.startswith(folder.name.removesuffix(ENDING) + "_")
                and not absolute.with_name(absolute.name + ".idx").exists()
            ]
        for folder in sorted(inside):
            if folder.is_dir():
                found.setdefault(str(folder), _look(path, folder))
    return tuple(found.values())


def _look(source: str, folder: Path) -> UnfinishedData:
    name = folder.name.removesuffix(ENDING)
    lock = folder.with_name(lock_name(name))
    goes_on = False
    if lock.exists():
        alive = locks.is_alive(locks.read_record(lock))
        goes_on = _age_s(lock) < locks.STALE_S if alive is None else alive
    try:
        pace = from_plain(Pace, read_json(folder / PACE))
    except (OSError, ValueError, TypeError, AttributeError):  # it has just begun, or just ended
        return UnfinishedData(source, str(folder), name, goes_on=goes_on)
    if pace.num_units and not goes_on:
        share, jobs = _num_done(folder) / pace.num_units, look_at_jobs(folder)
        goes_on = jobs is None or jobs.goes_on  # they have not been submitted yet, or do it
        new = share - pace.done_units / pace.num_units
        left_s = _age_s(folder / PACE) * (1 - share) / new if new > 0 and goes_on else None
        return UnfinishedData(source, str(folder), name, share, left_s, goes_on, jobs)
    share = pace.done_bytes / pace.total_bytes if pace.total_bytes else 0.0
    speed = pace.new_bytes / pace.seconds if pace.seconds else 0.0
    left_s = (pace.total_bytes - pace.done_bytes) / speed if speed and goes_on else None
    return UnfinishedData(source, str(folder), name, share, left_s, goes_on)


def _num_done(folder: Path) -> int:
    """Return the number of units that are done, joined or not."""
    try:
        joined = int(read_json(folder / PROGRESS)["pieces"])
    except (OSError, ValueError, KeyError, TypeError):
        joined = 0
    return joined + sum(1 for path in folder.glob("units-*/*") if not path.name.startswith("."))


def _age_s(path: Path) -> float:
    try:
        return max(0.0, time.time() - path.stat().st_mtime)
    except OSError:
        return float("inf")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def wait(paths: tuple[str, ...], tell: Callable[[str], None]) -> None:
    """Wait until nothing goes on to fill these paths, and say every minute how far it is."""
    told = -SAY_EVERY_S
    while under_way := [run for run in look_at_unfinished(paths) if run.goes_on]:
        if time.monotonic() - told >= SAY_EVERY_S:
            told = time.monotonic()
            tell(f"waiting for data: nemolaunch tokenize is writing {', '.join(map(str, under_way))}")
        time.sleep(LOOK_EVERY_S)
