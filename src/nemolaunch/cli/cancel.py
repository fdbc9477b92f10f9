"""`nemolaunch cancel RUN`: end a run and all its queued jobs."""

from __future__ import annotations

import argparse
from pathlib import Path

from nemolaunch.cli.arguments import Parser
from nemolaunch.cli.over_ssh import add_ssh_flags, elsewhere
from nemolaunch.cli.render import guarded
from nemolaunch.errors import NemolaunchError
from nemolaunch.plan import Plan
from nemolaunch.rundir import RunDir
from nemolaunch.status import run_of

END_S = 30.0  # that a run on this machine is given to end


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
    from nemolaunch import slurm_run

    plan = Plan.load(run_of(args.run).plan)
    if plan.submission is not None:
        ids = slurm_run.cancel(plan)
        print(f"cancelled job {', '.join(ids)}" if ids else "no job of it is in the queue")
        return 0
    return _cancel_here(plan.run)


def _cancel_here(run: RunDir) -> int:
    """End a run on this machine as Ctrl-C does: through the command that started it, where that lives."""
    from nemolaunch import execute, processes
    from nemolaunch.runlock import RunLock

    running = processes.members(run.root)
    if not running:
        print("no process of it runs on this machine")
        return 0
    execute.note_end(run, "stopped", "cancelled by the user")
    command = RunLock(run.lock).local_holder()
    processes.terminate(running if command is None else [command])
    if not processes.wait_until(lambda: not processes.members(run.root), END_S):
        raise NemolaunchError(
            f"{len(processes.members(run.root))} processes of it have not ended within {END_S:.0f} s"
        )
    print("cancelled; every process of it has ended")
    return 0
