"""`nemolaunch cancel RUN`: end a run and all its queued jobs."""

from __future__ import annotations

import argparse
from pathlib import Path

from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.parsing.over_ssh import add_ssh_flags, elsewhere
from nemolaunch.cli.views.render import guarded
from nemolaunch.errors import NemolaunchError
from nemolaunch.observe.status import run_of
from nemolaunch.planning import Plan
from nemolaunch.run.folder import RunDir

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
    from nemolaunch.observe import slurm_run

    plan = Plan.load(run_of(args.run).plan)
    if plan.submission is not None:
        ids = slurm_run.cancel(plan)
        print(f"cancelled job {', '.join(ids)}" if ids else "no job of it is in the queue")
        return 0
    return _cancel_here(plan.run)


def _cancel_here(run: RunDir) -> int:
    """End a run on this machine as Ctrl-C does: through the command that started it, where that lives."""
    from nemolaunch.launch import local
    from nemolaunch.run.lock import RunLock
    from nemolaunch.system import processes

    running = processes.members(run.root)
    if not running:
        print("no process of it runs on this machine")
        return 0
    local.note_end(run, "stopped", "cancelled by the user")
    command = RunLock(run.lock).local_holder()
    processes.terminate(running if command is None else [command])
    if not processes.wait_until(lambda: not processes.members(run.root), END_S):
        raise NemolaunchError(
            f"{len(processes.members(run.root))} processes of it have not ended within {END_S:.0f} s"
        )
    print("cancelled; every process of it has ended")
    return 0
