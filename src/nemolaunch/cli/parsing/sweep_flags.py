"""What `nemolaunch sweep` and `nemolaunch ladder` share: their flags, and the job that those describe."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.parsing.cluster_profile import add_cluster_flag, profile_of
from nemolaunch.cli.parsing.finding_flags import add_force_flag, forced_codes
from nemolaunch.cli.parsing.flags import add_job_flags, job_from, origins_from
from nemolaunch.cli.parsing.speed_flags import add_speed_flags, speed_from
from nemolaunch.job import Job

OBJECTIVES = ("val_loss", "loss")


def add_sweep_flags(parser: Parser) -> None:
    """Add the flags of both commands, and those of the job."""
    add = parser.add_argument
    add(
        "--config", type=Path, metavar="FILE", help="YAML file with any of the job's flags; flags override it"
    )
    add_cluster_flag(parser)
    add("--dry-run", action="store_true", help="check all runs and print the plan without starting anything")
    add(
        "--parallel",
        type=int,
        default=1,
        metavar="N",
        help="runs at a time on this machine, each with GPUs of its own; on Slurm, the queue decides",
    )
    add("--retry-failed", action="store_true", help="start runs again that failed before")
    add(
        "--compare-by",
        choices=OBJECTIVES,
        default="val_loss",
        help="result by which runs are compared; loss: mean training loss of the last tenth of the steps",
    )
    add_force_flag(parser)
    add_speed_flags(parser)
    add_job_flags(parser)


def described(given: dict[str, Any], *, model: str | None = None) -> tuple[Job, dict[str, Any]]:
    """Take the shared flags out of those given. Return the job, and the options of planning.

    Args:
        model: that of the job if no flag names one, because the runs do.
    """
    config, profile = given.pop("config"), profile_of(given)
    speed, force = speed_from(given), forced_codes(given)
    options = {
        "speed": speed,
        "force": force,
        "objective": given.pop("compare_by"),
        "here": not given["dry_run"],
    }
    for name in ("dry_run", "parallel", "retry_failed"):
        given.pop(name)
    if model is not None:
        given.setdefault("model_name", model)
    return job_from(given, config, profile), {**options, "given": origins_from(given, config, profile)}


def started_options(args: argparse.Namespace) -> Mapping[str, Any]:
    """Return how runs are to be started."""
    return {"parallel": args.parallel, "retry_failed": args.retry_failed}
