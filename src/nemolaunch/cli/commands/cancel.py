"""`nemolaunch cancel RUN`: end a run and all its queued jobs."""

from __future__ import annotations

import argparse
from pathlib import Path

from nemolaunch.cli.parsing.run_argument import run_command, run_parser
from nemolaunch.sweeps.folder import is_sweep
from nemolaunch.system import folder_identity


def parser() -> argparse.ArgumentParser:
    """Return the parser of `nemolaunch cancel`."""
    return run_parser(
        "nemolaunch cancel",
        example="nemolaunch cancel runs/pretraining",
        description="End a run: its running job and all waiting ones, its container, or its processes here. It saves "
        "a checkpoint, on Slurm if there is enough time; `nemolaunch resume` continues from the last checkpoint. Of a "
        "sweep or ladder: end all of its runs, and start no more; of one run of it: the sweep goes on. Of a folder "
        "that nemolaunch tokenize fills on Slurm: end its jobs; finished work is kept.",
    )


def _cancel(args: argparse.Namespace) -> int:
    from nemolaunch.api.run import Run
    from nemolaunch.observe import tokenising
    from nemolaunch.slurm import queue
    from nemolaunch.system import processes

    jobs = [run.jobs for run in tokenising.filled(args.run) if run.jobs is not None and run.goes_on]
    if jobs:
        ids = [job for each in jobs for job in (each.array, each.join) if job]
        queue.cancel(ids)
        print(f"cancelled job {', '.join(ids)}; the command that submitted them continues what is left")
        return 0
    if is_sweep(args.run):
        return _cancel_sweep(args.run)
    run = Run(args.run)
    if run.plan.submission is not None:
        ids = run.stop("cancelled by the user")
        print(f"cancelled job {', '.join(ids)}" if ids else "this run has no job in the queue")
    else:
        running = processes.members(run.folder)
        if running:
            print("waiting for a checkpoint; Ctrl-C ends the run without one", flush=True)
        run.stop("cancelled by the user")
        print("cancelled; all its processes have ended" if running else _nothing(run.folder))
    return 0


def _cancel_sweep(folder: Path) -> int:
    from nemolaunch.api.sweep import stop_sweep

    names = stop_sweep(folder, "cancelled by the user")
    print(f"cancelled {', '.join(names)}" if names else "no run of this sweep is going on or queued")
    return 0


def _nothing(folder: Path) -> str:
    original = folder_identity.read(folder) if folder_identity.is_copy(folder) else None
    copied = f"; it is a copy of {original.path}, whose processes are not touched" if original else ""
    return f"this run has no process on this machine{copied}"


main = run_command(parser, _cancel)
