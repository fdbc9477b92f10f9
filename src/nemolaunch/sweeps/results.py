"""What the runs of a sweep have reached: the best one, and how far runs differ that only differ in their seed."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.observe.status import statuses
from nemolaunch.run.metrics import tail_rows
from nemolaunch.sweeps.folder import Member, Record, read_record, run_dir

SEED = "seed"
LAST_SHARE = 0.1  # of a run's steps, over which its training loss is averaged
NOT_STARTED = "not started"


@dataclass(frozen=True)
class RunResult:
    """One run of a sweep.

    Attributes:
        value: the result by which runs are compared, None if it has none yet.
        loss: mean training loss of the last tenth of the steps so far.
        tokens: that it has read.
    """

    member: Member
    state: str
    detail: str
    step: int
    max_steps: int
    loss: float | None
    val_loss: float | None
    tokens: float | None
    value: float | None = None

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return self.member.name

    @property
    def is_finished(self) -> bool:
        """Whether it has done all of its steps."""
        return self.state == "finished"


@dataclass(frozen=True)
class SeedGroup:
    """Finished runs that only differ in their seed: what they share, and the spread of their results."""

    changes: dict[str, Any]
    seeds: tuple[int, ...]
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean result."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation; None for a single run."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Results:
    """All runs of a sweep, in the order of its record.

    Attributes:
        objective: `val_loss`, or `loss` where a finished run has no validation loss.
    """

    folder: Path
    record: Record
    runs: tuple[RunResult, ...]
    objective: str

    @property
    def ranked(self) -> tuple[RunResult, ...]:
        """The finished runs that have a result, best first."""
        found = [r for r in self.runs if r.is_finished and r.value is not None and not r.member.held_out]
        return tuple(sorted(found, key=lambda r: r.value or 0.0))

    @property
    def best(self) -> RunResult | None:
        """The finished run with the lowest result."""
        return self.ranked[0] if self.ranked else None

    @property
    def counts(self) -> dict[str, int]:
        """The number of runs in each state, most frequent first."""
        return dict(Counter(r.state for r in self.runs).most_common())

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that runs change, in the order of the record."""
        return tuple(dict.fromkeys(name for r in self.runs for name in r.member.changes))

    def by_seed(self) -> list[SeedGroup]:
        """Return the finished runs grouped by what they change besides the seed, best mean first."""
        groups: dict[str, list[RunResult]] = {}
        for run in self.ranked:
            groups.setdefault(repr(without_seed(run.member.changes)), []).append(run)
        found = [
            SeedGroup(
                without_seed(runs[0].member.changes),
                tuple(int(r.member.changes[SEED]) for r in runs if SEED in r.member.changes),
                tuple(r.value for r in runs if r.value is not None),
            )
            for runs in groups.values()
        ]
        return sorted(found, key=lambda group: group.mean)


def without_seed(changes: dict[str, Any]) -> dict[str, Any]:
    """Return the changes besides that of the seed."""
    return {name: value for name, value in changes.items() if name != SEED}


def results_of(folder: Path) -> Results:
    """Read what the runs of a sweep have reached.

    Raises:
        NemolaunchError: the folder is not that of a sweep.
    """
    folder = folder.expanduser().absolute()
    record = read_record(folder)
    runs = _read(folder, record.members)
    objective = record.objective
    if objective == "val_loss" and any(r.is_finished and r.val_loss is None for r in runs):
        objective = "loss"
    runs = [RunResult(**{**vars(r), "value": _finite(getattr(r, objective))}) for r in runs]
    return Results(folder, record, tuple(runs), objective)


def _read(folder: Path, members: Sequence[Member]) -> list[RunResult]:
    begun = [m for m in members if run_dir(folder, m.name).plan.exists()]
    found, _ = statuses([run_dir(folder, m.name).root for m in begun])
    by_folder = {status.folder: status for status in found}
    rows = []
    for member in members:
        run = run_dir(folder, member.name)
        status = by_folder.get(run.root)
        if status is None:
            state = "unreadable" if member in begun else NOT_STARTED
            rows.append(RunResult(member, state, "", 0, 0, None, None, None))
            continue
        loss = _late_loss(run.metrics, status.step) if run.metrics.exists() else None
        rows.append(
            RunResult(
                member,
                status.state,
                status.detail,
                status.step,
                status.max_steps,
                loss,
                status.val_loss,
                status.tokens,
            )
        )
    return rows


def _late_loss(metrics: Path, last_step: int) -> float | None:
    """Return the mean loss of the last tenth of the steps, as far as the end of the file has them."""
    found = {row["step"]: row["loss"] for row in tail_rows(metrics) if "loss" in row}
    late = [loss for step, loss in found.items() if step > last_step * (1 - LAST_SHARE)]
    return statistics.fmean(late) if late else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def summary(results: Results) -> str:
    """Return a line about a sweep: how many runs are in which state, and the best."""
    states = ", ".join(f"{number} {state}" for state, number in results.counts.items())
    if (best := results.best) is None:
        return f"{len(results.runs)} runs: {states}"
    return (
        f"{len(results.runs)} runs: {states}; best {best.name}, {label(results.objective)} {best.value:.4f}"
    )


def label(objective: str) -> str:
    """Return the name of an objective in words."""
    return {"val_loss": "validation loss", "loss": "training loss (mean of the last tenth)"}.get(
        objective, objective
    )
