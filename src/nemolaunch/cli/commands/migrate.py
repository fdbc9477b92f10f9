"""`nemolaunch migrate RUN --to FRAMEWORK`: continue a run under the other framework."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.parsing.cluster_profile import add_cluster_flag, profile_of
from nemolaunch.cli.parsing.finding_flags import add_force_flag, forced_codes
from nemolaunch.cli.parsing.flags import add_job_flags
from nemolaunch.cli.views.render import guarded
from nemolaunch.errors import NemolaunchError
from nemolaunch.findings import errors
from nemolaunch.system.quantities import counted
from nemolaunch.system.stop_signals import exit_on_signals

if TYPE_CHECKING:
    from nemolaunch.launching.migration import RunMigration

PROG = "nemolaunch migrate"
TARGETS = ("bridge", "nemo2")
OWN = ("run", "to", "output", "dry_run", "json")  # the other flags are the job's
STATES = {"carried": "carried", "left": "not carried", "differs": "will differ"}


def parser() -> argparse.ArgumentParser:
    """Return the parser."""
    p = Parser(
        prog=PROG,
        usage="%(prog)s RUN --to {bridge,nemo2} [--output DIR] [--dry-run] [flags of nemolaunch pretrain]",
        example=f"{PROG} runs/pretraining --to bridge --dry-run",
        description="Make a new run that continues RUN under the other framework, with its optimizer, learning rate "
        "and place in the data. Data files of the checkpoint are linked, so that this takes seconds. Flags such as "
        "--container-image override the plan. Starts nothing: `nemolaunch resume` continues the new run.",
    )
    p.add_argument("run", type=Path, metavar="RUN", help="run folder; its newest checkpoint is moved")
    p.add_argument("--to", choices=TARGETS, required=True, help="the framework that continues it")
    p.add_argument(
        "--output",
        "-o",
        type=Path,
        metavar="DIR",
        help="the new run folder (default: RUN-bridge or RUN-nemo2)",
    )
    p.add_argument(
        "--dry-run", action="store_true", help="show what is carried, what is not and what will differ"
    )
    p.add_argument("--json", action="store_true", help="print the report as JSON")
    add_cluster_flag(p)
    add_force_flag(p)
    add_job_flags(p)
    return p


@guarded
def main(argv: list[str] | None = None) -> int:
    """Move the run. Return the exit code."""
    given = vars(parser().parse_args(argv))
    args = argparse.Namespace(**{name: given.pop(name) for name in OWN})
    exit_on_signals()
    moved = _planned(args, given)
    from nemolaunch.cli.views import render
    from nemolaunch.cli.views.progress import byte_bar

    if not args.json:
        print("\n".join(_table(moved)))
    render.print_findings(moved.plan.findings)
    if errors(moved.plan.findings):
        raise NemolaunchError(
            f"the job has {counted(len(errors(moved.plan.findings)), 'error')}; nothing was written"
        )
    if args.dry_run:
        if args.json:
            print(json.dumps([vars(item) for item in moved.items], indent=2, ensure_ascii=False))
        return 0
    from nemolaunch.launching import migration

    record = migration.migrate(moved, _say, byte_bar)
    if args.json:
        print(json.dumps(record, indent=2, ensure_ascii=False))
    _say(f"wrote {moved.plan.folder}; continue it with: nemolaunch resume {moved.plan.folder}")
    return 0


def _planned(args: argparse.Namespace, given: dict[str, Any]) -> RunMigration:
    from nemolaunch.cli.parsing.saved_plan import job_of_plan
    from nemolaunch.launching import migration
    from nemolaunch.observe.status import run_of

    profile, force = profile_of(given), forced_codes(given)
    source = run_of(args.run)
    folder = migration.folder_for(source, args.to, args.output)
    fixed = {**migration.NOT_KEPT, **given, "backend": args.to, "output_dir": str(folder)}
    job, model, origins, _ = job_of_plan(source.plan, fixed, profile=profile)
    return migration.plan_migration(source, args.to, folder, job, model, origins, force)


def _table(moved: RunMigration) -> list[str]:
    rows = [(STATES[item.state], item.what, item.detail) for item in moved.items]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    head = f"{moved.checkpoint.title}\n{moved.source.root} → {moved.plan.folder}\n"
    return [head, *(f"{state:<{widths[0]}}  {what:<{widths[1]}}  {detail}" for state, what, detail in rows)]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
