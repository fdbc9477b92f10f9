"""`nemolaunch ladder`: sizes of one family at some tokens per weight, the law of their losses, and what it predicts."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.parsing.sweep_flags import add_sweep_flags, described, started_options
from nemolaunch.cli.views.render import guarded
from nemolaunch.errors import UsageError

TOKENS_PER_PARAM = (22.0,)  # at which the aixsim flavours were trained


def parser() -> argparse.ArgumentParser:
    """Return the parser of `nemolaunch ladder`."""
    p = Parser(
        prog="nemolaunch ladder",
        usage="%(prog)s --sizes MODEL MODEL MODEL [--predict MODEL] --dataset-dir PATH [options]",
        example="nemolaunch ladder --sizes aixsim-60m aixsim-200m aixsim-400m aixsim-600m --predict aixsim-1.1b "
        "--dataset-dir data --dry-run\nnemolaunch ladder --fit runs/ladder",
        description="Train sizes of one family at N tokens per parameter, fit loss = E + A/N^alpha + B/D^beta, "
        "predict a larger run, and check the prediction once that run is there. Needs scipy.",
    )
    add = p.add_argument
    add("--sizes", nargs="+", default=[], metavar="MODEL", help="models to train: names, or YAML files")
    add("--predict", nargs="+", default=[], metavar="MODEL", help="larger models of the family, to predict")
    add(
        "--train-predicted",
        action="store_true",
        help="train those too, after the others, and check the prediction",
    )
    add(
        "--sweep",
        action="append",
        default=[],
        metavar="FIELD=V,V",
        help="values to train for each size: seed=1,2 shows how far runs differ; of lr=…, the best of each size counts",
    )
    add(
        "--fit",
        type=Path,
        metavar="LADDER",
        help="train nothing: fit the runs of an earlier ladder or sweep again",
    )
    add("--json", action="store_true", help="with --fit: print the law as JSON")
    add_sweep_flags(p)
    for action in p._actions:
        if action.dest == "tokens_per_param":  # here a list of numbers
            action.nargs, action.help = (
                "+",
                "tokens for each weight of a model; several fit all five parameters",
            )
    return p


@guarded
def main(argv: list[str] | None = None) -> int:
    """Plan the ladder, start it, fit its law and show it. Return the exit code."""
    args = parser().parse_args(argv)
    given: dict[str, Any] = dict(vars(args))
    sizes, predict, words = given.pop("sizes"), given.pop("predict"), given.pop("sweep")
    trains, folder, as_json = given.pop("train_predicted"), given.pop("fit"), given.pop("json")
    if folder is not None:
        return _fit(folder, as_json)
    from nemolaunch.sweeps import ladder
    from nemolaunch.sweeps.points import parsed_axes

    if as_json:
        raise UsageError("--json is for --fit")
    if not predict and trains:
        raise UsageError("--train-predicted trains what --predict names; add --predict MODEL")
    ratios = given.pop("tokens_per_param", TOKENS_PER_PARAM)
    points, targets = ladder.ladder_points(sizes, ratios, parsed_axes(words), predict)
    given.setdefault("experiment", "ladder")
    job, options = described(given, model=sizes[0])
    options |= {"points": points, "predicted": targets, "train_predicted": trains, "kind": "ladder"}

    from nemolaunch.api.sweep import Sweep, planned
    from nemolaunch.cli.views.sweep import run

    sweep = Sweep(planned(job, **options))
    ladder.check_family(sweep.plan)
    return run(sweep, job.model.hf_token, dry_run=args.dry_run, **started_options(args))


def _fit(folder: Path, as_json: bool) -> int:
    """Fit the runs of a ladder that was trained before."""
    from nemolaunch.sweeps.ladder import fitted, ladder_lines, ladder_values
    from nemolaunch.sweeps.page import write_page
    from nemolaunch.sweeps.results import results_of

    found = fitted(results_of(folder))
    if as_json:
        print(json.dumps(ladder_values(found), indent=1, ensure_ascii=False, allow_nan=False))
        return 0
    print("\n".join(ladder_lines(found)))
    print(f"page: {write_page(folder)}")
    return 0
