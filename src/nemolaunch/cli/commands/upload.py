"""`nemolaunch upload RUN [URL]`: what a run has not uploaded to an object store."""

from __future__ import annotations

import argparse

from nemolaunch.cli.parsing.run_argument import run_command, run_parser
from nemolaunch.cli.views.progress import Bar
from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.observe.status import run_of
from nemolaunch.planning import Plan
from nemolaunch.run.uploads import Uploader, UploadState, url_below
from nemolaunch.system import locks, remote


def parser() -> argparse.ArgumentParser:
    """Return the parser of `nemolaunch upload`."""
    p = run_parser(
        "nemolaunch upload",
        example="nemolaunch upload runs/pretraining\nnemolaunch upload runs/pretraining s3://bucket/runs",
        description="Upload the complete checkpoints of a run to an object store, with its plan, metrics and logs, as "
        "--upload does during training: after a job that was killed before it had uploaded everything, or for a run "
        "without --upload. What is there already is not sent again. `nemolaunch resume URL/EXPERIMENT` continues the "
        "run.",
    )
    p.add_argument(
        "url",
        nargs="?",
        metavar="URL",
        help="where to, such as s3://bucket/runs; the run is URL/EXPERIMENT (default: the run's --upload)",
    )
    return p


def _upload(args: argparse.Namespace) -> int:
    run = run_of(args.run)
    plan = Plan.of_run(run)
    given = args.url or plan.job.checkpoint.upload
    if given is None:
        raise UsageError(f"{args.run} was trained without --upload: give a URL, such as s3://bucket/runs")
    remote.require_library(given)
    if any("=" in word for word in plan.job.launch.env):
        raise UsageError(
            "the plan has values of --env, which would be stored in the bucket: give names alone when you train"
        )
    if not run.complete_checkpoints():
        raise NemolaunchError(f"{args.run} has no complete checkpoint to upload")
    busy = f"a process is uploading {args.run} already: see `nemolaunch status {args.run}`"
    with locks.held(run.upload_lock, busy, wait_s=locks.STALE_S), Bar(None, "uploading") as bar:
        uploader = Uploader(
            run, url_below(given, plan.job.launch.experiment), bar.say, lambda state: _show(bar, state)
        )
        done = uploader.advance()
    if not done:
        raise NemolaunchError("what has arrived is kept: the same command sends the rest")
    print(f"{uploader.state}; continue it elsewhere with `nemolaunch resume {uploader.url}`")
    return 0


def _show(bar: Bar, state: UploadState) -> None:
    if state.under_way:
        bar.show(state.done_bytes, state.under_way, state.total_bytes)


main = run_command(parser, _upload)
