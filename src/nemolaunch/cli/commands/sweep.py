"""`nemolaunch sweep`: one run for each combination of values, planned, started and compared as one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.parsing.sweep_flags import add_sweep_flags, described, started_options
from nemolaunch.cli.parsing.yaml_file import read_any
from nemolaunch.cli.views.render import guarded
from nemolaunch.errors import UsageError


def parser() -> argparse.ArgumentParser:
    """Return the parser of `nemolaunch sweep`."""
    p = Parser(
        prog="nemolaunch sweep",
        usage="%(prog)s -M MODEL --dataset-dir PATH --sweep FIELD=VALUE,VALUE [--sweep …] [options]",
        example="nemolaunch sweep -M nano --dataset-dir data --max-steps 1000 --sweep lr=1e-3,3e-4 --sweep seed=1,2 "
        "--dry-run",
        description="Train one run for each combination of values, in RUNS/EXPERIMENT/NAME. All runs are planned and "
        "checked before the first one starts. The same command again continues: finished runs are kept.",
    )
    p.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="FIELD=V,V",
        help="values of a field of the job, under the name of its flag; repeatable: all combinations are trained",
    )
    p.add_argument(
        "--sweep-list",
        type=Path,
        metavar="FILE",
        help="YAML or JSON list with the flags of each run, instead",
    )
    add_sweep_flags(p)
    return p


@guarded
def main(argv: list[str] | None = None) -> int:
    """Plan the sweep, start it and show its results. Return the exit code."""
    args = parser().parse_args(argv)
    given: dict[str, Any] = dict(vars(args))
    words, path = given.pop("sweep"), given.pop("sweep_list")
    from nemolaunch.sweeps.points import grid, listed, parsed_axes

    if words and path:
        raise UsageError("--sweep and --sweep-list both name the runs; use one of them")
    points = listed(path, read_any(path, "--sweep-list")) if path else grid(parsed_axes(words))
    first = next((p.changes["model_name"] for p in points if "model_name" in p.changes), None)
    job, options = described(given, model=first)

    from nemolaunch.api.sweep import Sweep, planned
    from nemolaunch.cli.views.sweep import run

    sweep = Sweep(planned(job, points=points, **options))
    return run(sweep, job.model.hf_token, dry_run=args.dry_run, **started_options(args))
