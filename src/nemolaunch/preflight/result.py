"""The result of a preflight in the run folder, and the nodes that later starts leave out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nemolaunch.preflight.judge import WARNING, Trouble, unfit
from nemolaunch.preflight.rows import Measured
from nemolaunch.run.folder import RunDir, read_json, unfit_nodes
from nemolaunch.system.atomic_files import write_json, write_text
from nemolaunch.system.quantities import counted

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Result:
    """A preflight: what was measured, and what is wrong.

    Attributes:
        attempt: the attempt of a run that it belongs to, `JOB.RESTART` on Slurm.
        time: when it ended, in Unix seconds.
        tolerance: how far below the median a rank or node was allowed to be.
    """

    attempt: str
    time: float
    tolerance: float
    measured: Measured
    troubles: tuple[Trouble, ...] = ()

    @property
    def unfit(self) -> tuple[str, ...]:
        """The slow and sick nodes."""
        return unfit(self.troubles)

    def values(self) -> dict[str, Any]:
        """Return everything in it as plain values, for JSON."""
        return {**dataclasses.asdict(self), "unfit": list(self.unfit)}

    @property
    def sentence(self) -> str:
        """Which nodes are unfit, and why; or how many are fit."""
        grave = [str(trouble) for trouble in self.troubles if trouble.level != WARNING]
        fit = [row for row in self.measured.nodes if row.node not in self.unfit]
        return "; ".join(grave) or f"{counted(len(fit), 'node')}, all fit"


def save(run: RunDir, result: Result) -> None:
    """Write the result, then the list of unfit nodes."""
    write_json(run.preflight_result, {"format": FORMAT, **result.values()})
    measured = {row.node for row in result.measured.nodes}
    listed = still_unfit(unfit_nodes(run), measured, result.unfit)
    failed = result.attempt if result.unfit else "-"
    write_text(run.preflight_unfit, f"{failed}\n{','.join(listed)}\n")


def still_unfit(before: Iterable[str], measured: set[str], named: Iterable[str]) -> list[str]:
    """Return the nodes to leave out: those named now, and those named before that were not measured again."""
    return list(dict.fromkeys([*(node for node in before if node not in measured), *named]))


def load(run: RunDir) -> Result | None:
    """Return the latest result of a run; None if there is none that can be read."""
    values: Any = read_json(run.preflight_result)
    if not values or values.get("format") != FORMAT:
        return None
    try:
        return Result(
            attempt=values["attempt"],
            time=values["time"],
            tolerance=values["tolerance"],
            measured=Measured.of(values["measured"]),
            troubles=tuple(Trouble(**row) for row in values["troubles"]),
        )
    except (KeyError, TypeError):
        return None


def new(attempt: str, tolerance: float, measured: Measured, troubles: tuple[Trouble, ...]) -> Result:
    """Return the result of a preflight that ends now."""
    return Result(
        attempt=attempt, time=time.time(), tolerance=tolerance, measured=measured, troubles=troubles
    )
