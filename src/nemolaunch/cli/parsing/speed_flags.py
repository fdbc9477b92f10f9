"""`--speed-from RUN` and `--mfu X`: the speed that a time estimate assumes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemolaunch.errors import UsageError
from nemolaunch.system.json_files import read_json

if TYPE_CHECKING:
    from nemolaunch.estimate import SpeedAssumption

SETTLING_STEPS = 3  # the first steps of a run build caches and are slower


def add_speed_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that `speed_from` reads."""
    group = parser.add_argument_group("estimate", "What time estimates assume.")
    group.add_argument(
        "--speed-from",
        "--like",
        metavar="RUN",
        type=Path,
        help="estimate time from the measured speed of an earlier run",
    )
    group.add_argument(
        "--mfu",
        metavar="X",
        type=float,
        help="share of the GPU's peak to assume (default: what published runs reach)",
    )


def speed_from(given: dict[str, Any]) -> SpeedAssumption:
    """Take `speed_from` and `mfu` out of parsed flags and return the speed they describe.

    Raises:
        UsageError: both are given, the share is out of range, or the run has no measured steps.
    """
    from nemolaunch.estimate import SpeedAssumption  # its imports would take most of the time of `--help`

    run, mfu = given.pop("speed_from", None), given.pop("mfu", None)
    if run is not None and mfu is not None:
        raise UsageError("--speed-from and --mfu both say how fast a GPU is; use one of them")
    if mfu is not None and not 0 < mfu <= 1:
        raise UsageError(
            f"--mfu {mfu:g} is not a share of the peak: use a number above 0 and up to 1, like 0.4"
        )
    if run is not None:
        return SpeedAssumption(flops_per_s=measured_flops(run), run=str(run))
    return SpeedAssumption(mfu=mfu)


def measured_flops(folder: Path) -> float:
    """Return a run's model FLOPs per second and process, by the full convention: the median of its steps.

    Raises:
        UsageError: it is not a run folder, or the run has no measured steps.
    """
    import statistics

    from nemolaunch.run.folder import RunDir
    from nemolaunch.run.metrics import read

    run = RunDir(folder)
    try:
        plan = read_json(run.plan)
        per_token = float(plan["estimate"]["time"]["flops_per_token_full"])
        processes = int(plan["world_size"])
    except OSError as error:
        raise UsageError(
            f"--speed-from {folder} is not a run folder: {run.plan.name}: {error.strerror}"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise UsageError(
            f"--speed-from {folder}: {run.plan.name} does not say how many FLOPs a token needs"
        ) from None
    speeds = [float(row["tokens_per_s"]) for row in read(run.metrics) if row.get("tokens_per_s")]
    settled = speeds[SETTLING_STEPS:] or speeds
    if not settled:
        raise UsageError(f"--speed-from {folder}: the run has no measured steps in {run.metrics.name}")
    return statistics.median(settled) / max(1, processes) * per_token
