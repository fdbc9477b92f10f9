"""`nemolaunch diagnose RUN`: why a run failed, and what to change."""

from __future__ import annotations

import argparse
from pathlib import Path

from nemolaunch.cli.arguments import HelpFormatter, normalise_long_options
from nemolaunch.cli.over_ssh import add_ssh_flags, elsewhere
from nemolaunch.cli.render import guarded
from nemolaunch.diagnose import diagnose, newest_failure
from nemolaunch.status import run_of, status


def parser() -> argparse.ArgumentParser:
    """Flags of `nemolaunch diagnose`."""
    p = argparse.ArgumentParser(
        prog="nemolaunch diagnose",
        description="Name the first rank and node that failed, the cause, and the change to make. Of a run that goes "
        "on, tell about its last start that failed.",
        formatter_class=HelpFormatter,
    )
    p.add_argument("run", type=Path, metavar="RUN", help="run folder")
    add_ssh_flags(p)
    return p


@guarded
def main(argv: list[str] | None = None) -> int:
    """Print it. Returns the exit code."""
    args = parser().parse_args(normalise_long_options(argv))
    if args.ssh:
        return elsewhere(args, "diagnose", argv)
    run = run_of(args.run)
    now = status(args.run)
    print(f"{'state':<8}{now.word}" + (f": {now.detail}" if now.detail else ""))
    if now.word in ("running", "waiting", "finished"):
        found = newest_failure(run, alive=now.word != "waiting")
        print("\n".join(["before that", *found.lines()]) if found else "nothing of it has failed")
    else:
        print("\n".join(diagnose(run).lines()))
    return 0
