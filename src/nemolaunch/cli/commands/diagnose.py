"""`nemolaunch diagnose RUN`: explain why a run failed, and what to change."""

from __future__ import annotations

import argparse
import json

from nemolaunch.cli.parsing.run_argument import run_command, run_parser
from nemolaunch.facts.unfinished_data import UnfinishedData
from nemolaunch.observe import tokenising
from nemolaunch.observe.planned_rate import other_rate
from nemolaunch.observe.status import explanation, has_failed, run_of, status
from nemolaunch.planning import Plan


def parser() -> argparse.ArgumentParser:
    """Return the parser of `nemolaunch diagnose`."""
    p = run_parser(
        "nemolaunch diagnose",
        example="nemolaunch diagnose runs/pretraining",
        description="Show the first rank and node that failed, the cause, and the change to make. For a run that is "
        "still going, explain its last failed attempt. Of a folder that nemolaunch tokenize fills on Slurm: the tasks "
        "that failed.",
    )
    p.add_argument("--json", action="store_true", help="print JSON")
    return p


def _diagnose(args: argparse.Namespace) -> int:
    if filling := tokenising.filled(args.run):
        return _tokenising(filling, args.json)
    run = run_of(args.run)
    now = status(run.root)
    over = now.state not in ("running", "waiting", "finished")
    found = explanation(run, now)
    rate = other_rate(run, Plan.of_run(run))
    if args.json:
        what = found.as_values() if found else None
        values = {"state": now.state, "detail": now.detail, "over": over, "failure": what}
        print(json.dumps({**values, "learning_rate": str(rate) if rate else None}, indent=1))
        return 0
    repeated = found is not None and now.detail == found.what
    print(f"{'state':<8}{now.state}" + (f": {now.detail}" if now.detail and not repeated else ""))
    if found is None:
        print("nothing has failed")
    else:
        print("\n".join([*([] if has_failed(run, now) else ["last failed attempt:"]), *found.lines()]))
    if rate is not None:
        print(f"warning[learning-rate]: {rate}")
    return 0


def _tokenising(filling: tuple[UnfinishedData, ...], as_json: bool) -> int:
    """Print why tasks of runs of `nemolaunch tokenize` failed."""
    for one in filling:
        found = tokenising.failures(one)
        if as_json:
            print(json.dumps(tokenising.as_values(one, found), ensure_ascii=False, indent=1))
            continue
        print(f"{'state':<8}{'tokenising' if one.goes_on else 'interrupted'}: {one}")
        print("\n".join(line for failure in found for line in failure.lines()) or "nothing has failed")
    return 0


main = run_command(parser, _diagnose)
