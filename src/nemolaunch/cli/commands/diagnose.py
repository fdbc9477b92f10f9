"""`nemolaunch diagnose RUN`: explain why a run failed, and what to change."""

from __future__ import annotations

import argparse
import json

from nemolaunch.cli.parsing.run_argument import run_command, run_parser
from nemolaunch.observe import slurm_run
from nemolaunch.observe.diagnosis import diagnose, newest_failure
from nemolaunch.observe.planned_rate import other_rate
from nemolaunch.observe.status import Status, run_of, status
from nemolaunch.planning import Plan


def parser() -> argparse.ArgumentParser:
    """Return the parser of `nemolaunch diagnose`."""
    p = run_parser(
        "nemolaunch diagnose",
        example="nemolaunch diagnose runs/pretraining",
        description="Show the first rank and node that failed, the cause, and the change to make. For a run that is "
        "still going, explain its last failed attempt.",
    )
    p.add_argument("--json", action="store_true", help="print JSON")
    return p


def _diagnose(args: argparse.Namespace) -> int:
    run = run_of(args.run)
    now = status(run.root)
    over = now.state not in ("running", "waiting", "finished")
    failed = over and _failed(Plan.of_run(run), now)
    found = diagnose(run) if failed else newest_failure(run, alive=now.state in ("running", "finished"))
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
        print("\n".join([*([] if failed else ["last failed attempt:"]), *found.lines()]))
    if rate is not None:
        print(f"warning[learning-rate]: {rate}")
    return 0


def _failed(plan: Plan, now: Status) -> bool:
    """Return whether a run that is over ended because of a failure."""
    if plan.submission is not None:
        return now.state == "never submitted" or slurm_run.failed(plan, now.detail, now.job)
    return now.state == "failed" or not plan.run.local_end.exists()


main = run_command(parser, _diagnose)
