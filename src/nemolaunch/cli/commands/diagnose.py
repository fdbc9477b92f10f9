"""`nemolaunch diagnose RUN`: explain why a run failed, and what to change."""

from __future__ import annotations

import argparse
import json

from nemolaunch.cli.parsing.run_argument import run_command, run_parser
from nemolaunch.observe.planned_rate import other_rate
from nemolaunch.observe.status import explanation, has_failed, run_of, status
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


main = run_command(parser, _diagnose)
