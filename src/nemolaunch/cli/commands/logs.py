"""`nemolaunch logs RUN`: show the output of a rank, or of the batch job."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from nemolaunch.cli.parsing.arguments import whole_number
from nemolaunch.cli.parsing.run_argument import run_command, run_parser
from nemolaunch.errors import NemolaunchError
from nemolaunch.observe import tokenising
from nemolaunch.observe.diagnosis import newest_output
from nemolaunch.observe.status import run_of
from nemolaunch.run.folder import RunDir

BLOCK = 65536
POLL_S = 0.5


def parser() -> argparse.ArgumentParser:
    """Return the parser of `nemolaunch logs`."""
    p = run_parser(
        "nemolaunch logs",
        example="nemolaunch logs runs/pretraining --rank 3 --lines 100",
        description="Show the end of a rank's log, or of the batch job's output. Of a folder that nemolaunch tokenize "
        "fills on Slurm: of a task, or with --job of the job that joins the results.",
    )
    p.add_argument(
        "--rank", type=whole_number, default=0, metavar="N", help="rank whose log to show, or task"
    )
    p.add_argument("--job", action="store_true", help="show the output of the batch job instead")
    p.add_argument("-n", "--lines", type=whole_number, default=40, metavar="N", help="number of lines")
    p.add_argument("-f", "--follow", action="store_true", help="keep printing new lines as they are written")
    return p


def _logs(args: argparse.Namespace) -> int:
    path = _of_tokenising(args) or _of_training(args)
    end = path.stat().st_size
    for line in last_lines(path, args.lines, end):
        print(line)
    if args.follow:
        sys.stdout.flush()
        for text in appended(path, end):
            sys.stdout.write(text)
            sys.stdout.flush()
    return 0


def _of_training(args: argparse.Namespace) -> Path:
    run = run_of(args.run)
    path = newest_output(run) if args.job else run.rank_log(args.rank)
    if path is None or not path.exists():
        raise NemolaunchError(f"there is no log {path or 'of a batch job'} yet{_others(run)}")
    return path


def _of_tokenising(args: argparse.Namespace) -> Path | None:
    """Return the log of a job that fills the folder; None if no run of `nemolaunch tokenize` on Slurm does."""
    known = {
        task: path for run in tokenising.filled(args.run) for task, path in tokenising.logs_of(run).items()
    }
    if not known:
        return None
    if (path := known.get(None if args.job else args.rank)) is not None:
        return path
    tasks = ", ".join(str(task) for task in known if task is not None) or "none"
    what = "of the job that joins the results" if args.job else f"of task {args.rank}"
    raise NemolaunchError(f"there is no log {what} yet; there are logs of tasks: {tasks}")


def _others(run: RunDir) -> str:
    ranks = sorted(int(p.stem[4:]) for p in run.logs.glob("rank*.log") if p.stem[4:].isdigit())
    return f"; there are logs of ranks {ranks[0]} to {ranks[-1]}" if ranks else ""


def last_lines(path: Path, num_lines: int, end: int) -> list[str]:
    """Return the last lines before a position in a file, reading backwards: logs of long runs can be gigabytes."""
    with open(path, "rb") as file:
        at = end
        data = b""
        while at > 0 and data.count(b"\n") <= num_lines:
            start = max(0, at - BLOCK)
            file.seek(start)
            data = file.read(at - start) + data
            at = start
    lines = data.decode("utf-8", "replace").splitlines()
    return lines[-num_lines:] if num_lines > 0 else []


def appended(path: Path, at: int) -> Iterator[str]:
    """Yield text appended to a file after a position, forever; start over if the file is replaced by a shorter one."""
    while True:
        size = path.stat().st_size
        if size < at:
            at = 0
        if size > at:
            with open(path, "rb") as file:
                file.seek(at)
                data = file.read(size - at)
            at += len(data)
            yield data.decode("utf-8", "replace")
        else:
            time.sleep(POLL_S)


main = run_command(parser, _logs)
