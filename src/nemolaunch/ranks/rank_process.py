"""One training process from its start to its end, whichever framework trains in it: its log, its data, its error."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from nemolaunch.data.data_digest import changed_files
from nemolaunch.data.index_files import remove_incomplete
from nemolaunch.errors import NemolaunchError
from nemolaunch.planning import Plan
from nemolaunch.ranks import hang, slurm_rank
from nemolaunch.ranks.error_chain import chain, described
from nemolaunch.ranks.folder_watch import FolderWatch
from nemolaunch.ranks.log import log
from nemolaunch.ranks.news import news_of
from nemolaunch.ranks.uploading import Beside
from nemolaunch.run.folder import RunDir
from nemolaunch.run.news import LOCAL_ATTEMPT
from nemolaunch.system import processes, webhook
from nemolaunch.system.atomic_files import write_json
from nemolaunch.system.secret_values import mask_streams, masked, without_password

END_AFTER_ERROR_S = 60
TOLD_TO_EXIT = "SIGTERMException"  # Lightning's, when the rank received SIGTERM


def run_rank(plan_file: str, train: Callable[[Plan], None]) -> None:
    """Call `train` with the plan, with all output in the rank's log file.

    A failure is recorded in the rank's error file and ends the process with exit code 1.
    """
    plan = Plan.load(Path(plan_file))
    slurm_rank.signals.catch(
        slurm_rank.SIGNALS if plan.outlives_its_command else slurm_rank.SIGNALS_OF_COMMAND
    )
    if plan.submission is not None:
        slurm_rank.adopt_slurm_variables()
    rank = int(os.environ.get("RANK") or 0)
    _die_with_parent()
    processes.end_helpers_with_this()
    _log_to_file(plan.run, rank)
    os.environ.update(without_password(os.environ))
    mask_streams()
    hang.watch_start(plan.job.guards.hang_timeout)
    if rank == 0:
        FolderWatch(plan.run).start()
    beside: Beside | None = None
    try:
        if plan.submission is not None:
            slurm_rank.settle_checkpoints(plan.run, rank)
        if rank == 0:
            beside = Beside(plan)
        train(plan)
        webhook.flush()
        if beside is not None:
            beside.finish(failed=False, say=log.info)
    except BaseException as error:
        _record_error(plan, rank, error)
        if beside is not None:
            beside.finish(failed=True, say=log.info)
        hang.end_within(END_AFTER_ERROR_S)  # collectives and writers can block the interpreter's exit forever
        sys.exit(1)  # the traceback is already in the log


def prepare_data(plan: Plan) -> None:
    """Check the data, on the rank that builds the index, which the others read.

    Raises:
        NemolaunchError: a data file has other content than when it was planned.
    """
    if int(os.environ.get("RANK") or 0) != 0:
        return
    _require_planned_data(plan)
    if plan.index_folder:
        remove_incomplete(Path(plan.index_folder))


def _require_planned_data(plan: Plan) -> None:
    """Refuse data that were replaced after planning, while the job was queued: everything planned is for the others.

    Raises:
        NemolaunchError: a data file has other content than when it was planned.
    """
    changed = changed_files(plan.digests)
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise NemolaunchError(
            f"{changed[0]}{more} changed after this run was planned; start it again, which plans it for the new data"
        )


def note_end(plan: Plan, step: int, *, end_of_data: bool = False) -> None:
    """Record that the run has finished, if it has. To be called on the first rank."""
    if end_of_data or step >= plan.max_steps:
        write_json(plan.run.finished, {"step": step, "time": time.time(), "end_of_data": end_of_data})
        news = news_of(plan, log.info)
        news.tell("finished", f"finished step {step:,}" + (", the end of its data" if end_of_data else ""))
        news.flush()


def _die_with_parent() -> None:
    """Have the kernel end this process when the launcher's agent dies, so that no rank keeps training alone."""
    if processes.OF_TORCHRUN in os.environ:
        processes.signal_on_parents_death(signal.SIGKILL)


def _log_to_file(run: RunDir, rank: int) -> None:
    """Redirect stdout and stderr, including those of C code and child processes, to the rank's log."""
    run.logs.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    log = os.open(run.rank_log(rank), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def _record_error(plan: Plan, rank: int, error: BaseException) -> None:
    traceback.print_exc()
    sys.stderr.flush()
    first, *then = chain(error)
    record = {"rank": rank, "time": time.time(), "type": type(first).__name__, "message": masked(str(first))}
    record["then"] = [masked(described(each)) for each in then]
    if "SLURM_JOB_ID" in os.environ:
        record["start"] = slurm_rank.this_attempt()
    write_json(plan.run.rank_error(rank), record)
    if record["type"] != TOLD_TO_EXIT:
        attempt = str(record.get("start", LOCAL_ATTEMPT))
        news_of(plan, log.info).tell_failure(attempt, f"rank {rank}: {record['type']}: {record['message']}")
