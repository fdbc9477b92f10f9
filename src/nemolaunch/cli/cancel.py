"""`nemolaunch cancel RUN`: end a run and all its queued jobs."""

from __future__ import annotations

import argparse
from pathlib import Path

from nemolaunch.cli.arguments import Parser
from nemolaunch.cli.over_ssh import add_ssh_flags, elsewhere
from nemolaunch.cli.render import guarded
from nemolaunch.plan import Plan
from nemolaunch.status import run_of


def parser() -> argparse.ArgumentParser:
    """Flags of `nemolaunch cancel`."""
    p = Parser(
        prog="nemolaunch cancel",
        example="nemolaunch cancel runs/pretraining",
        description="End a run: the job that runs and the ones that wait. It saves a checkpoint if Slurm "
        "leaves it the time; `nemolaunch resume` goes on from the last one.",
    )
    p.add_argument("run", type=Path, metavar="RUN", help="run folder")
    add_ssh_flags(p)
    return p


@guarded
def main(argv: list[str] | None = None) -> int:
    """Cancel. Returns the exit code."""
    args = parser().parse_args(argv)
    if args.ssh:
        return elsewhere(args, "cancel", argv)
    from nemolaunch import processes, slurm_run

    plan = Plan.load(run_of(args.run).plan)
    if plan.submission is not None:
        ids = slurm_run.cancel(plan)
        print(f"cancelled job {', '.join(ids)}" if ids else "no job of it is in the queue")
        return 0
    running = processes.members(plan.run.root)
    processes.terminate(running)
    print(f"asked {len(running)} process(es) to end" if running else "no process of it runs on this machine")
    return 0
