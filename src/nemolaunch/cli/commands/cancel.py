"""`nemolaunch cancel RUN`: end a run and all its queued jobs."""

from __future__ import annotations

import argparse

from nemolaunch.cli.parsing.run_argument import run_command, run_parser


def parser() -> argparse.ArgumentParser:
    """Return the parser of `nemolaunch cancel`."""
    return run_parser(
        "nemolaunch cancel",
        example="nemolaunch cancel runs/pretraining",
        description="End a run: its running job and all waiting ones, or its container. It saves a checkpoint, "
        "on Slurm if there is enough time; `nemolaunch resume` continues from the last checkpoint.",
    )


def _cancel(args: argparse.Namespace) -> int:
    from nemolaunch.api.run import Run
    from nemolaunch.system import processes

    run = Run(args.run)
    if run.plan.submission is not None:
        ids = run.stop("cancelled by the user")
        print(f"cancelled job {', '.join(ids)}" if ids else "this run has no job in the queue")
    elif not processes.members(run.folder):
        print("this run has no process on this machine")
    else:
        if run.plan.container is not None:
            print("waiting for a checkpoint; Ctrl-C ends the run without one", flush=True)
        run.stop("cancelled by the user")
        print("cancelled; all its processes have ended")
    return 0


main = run_command(parser, _cancel)
