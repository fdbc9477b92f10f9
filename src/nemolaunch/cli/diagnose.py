"""`nemolaunch diagnose RUN`: why a run failed, and what to change."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from nemolaunch.cli.arguments import Parser
from nemolaunch.cli.over_ssh import add_ssh_flags, elsewhere
from nemolaunch.cli.render import guarded
from nemolaunch.diagnose import diagnose, newest_failure
from nemolaunch.status import run_of, status


def parser() -> argparse.ArgumentParser:
    """Flags of `nemolaunch diagnose`."""
    p = Parser(
        prog="nemolaunch diagnose",
        example="nemolaunch diagnose runs/pretraining",
        description="Name the first rank and node that failed, the cause, and the change to make. Of a run that goes "
        "on, tell about its last start that failed.",
    )
    p.add_argument("run", type=Path, metavar="RUN", help="run folder")
    p.add_argument("--json", action="store_true", help="as JSON")
    add_ssh_flags(p)
    return p


@guarded
def main(argv: list[str] | None = None) -> int:
    """Print it. Returns the exit code."""
    args = parser().parse_args(argv)
    if args.ssh:
        return elsewhere(args, "diagnose", argv)
    run = run_of(args.run)
    now = status(args.run)
    over = now.word not in ("running", "waiting", "finished")
    found = diagnose(run) if over else newest_failure(run, alive=now.word != "waiting")
    if args.json:
        failed = found.as_values() if found else None
        print(
            json.dumps({"state": now.word, "detail": now.detail, "over": over, "failure": failed}, indent=1)
        )
        return 0
    print(f"{'state':<8}{now.word}" + (f": {now.detail}" if now.detail else ""))
    if found is None:
        print("nothing of it has failed")
    else:
        print("\n".join([*([] if over else ["before that"]), *found.lines()]))
    return 0
