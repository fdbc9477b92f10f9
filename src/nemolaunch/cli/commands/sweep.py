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
    p.add_argument(
        "--sampler",
        metavar="optuna:NAME",
        help="search instead: Optuna draws each trial from the results of earlier ones, from --sweep FIELD=LOW..HIGH, "
        "FIELD=LOW..HIGH:log or FIELD=V,V; tpe, random or qmc; on this machine only",
    )
    p.add_argument("--trials", type=int, metavar="N", help="with --sampler: trials in all")
    add_sweep_flags(p)
    return p


@guarded
def main(argv: list[str] | None = None) -> int:
    """Plan the sweep, start it and show its results. Return the exit code."""
    args = parser().parse_args(argv)
    given: dict[str, Any] = dict(vars(args))
    words, path = given.pop("sweep"), given.pop("sweep_list")
    sampler, trials = given.pop("sampler"), given.pop("trials")
    if sampler is not None:
        return _search(args, given, words, path, sampler, trials)
    if trials is not None:
        raise UsageError("--trials is for a search, with --sampler optuna:tpe")
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


def _search(
    args: argparse.Namespace,
    given: dict[str, Any],
    words: list[str],
    path: Path | None,
    sampler: str,
    trials: int | None,
) -> int:
    """Plan a search, train its trials and show their results. Return the exit code."""
    from nemolaunch.sweeps.space import parsed_space

    if path is not None:
        raise UsageError("--sampler draws from --sweep; --sweep-list names runs")
    if trials is None:
        raise UsageError("--sampler needs --trials N, the number of trials in all")
    if args.retry_failed:
        raise UsageError(
            "--retry-failed: a search has told its sampler of failed trials; raise --trials instead"
        )
    space = parsed_space(words)
    first = space["model_name"].at(0) if "model_name" in space else None
    job, options = described(given, model=None if first is None else str(first))

    from nemolaunch.api.search import Search
    from nemolaunch.cli.views.search import run

    search = Search(job, space, sampler=sampler, trials=trials, **options)
    return run(search, job.model.hf_token, dry_run=args.dry_run, parallel=args.parallel)
