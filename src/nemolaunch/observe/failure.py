"""Why a run failed, from what its processes wrote to the run folder."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.observe.tracebacks import first_error
from nemolaunch.run.attempts import Attempt, attempts
from nemolaunch.run.folder import CONTAINER_LINE, RunDir
from nemolaunch.system.json_files import read_json
from nemolaunch.system.processes import signal_name

LONGEST_MESSAGE = 600
# Errors a rank raises because another one has gone: never the first failure, if there is any other error
_CONSEQUENCES = re.compile(
    r"SIGTERMException|UnfitElsewhere|Dist(Backend|Network|Store)Error|ConnectionError|ConnectionResetError|BrokenPipeError"
    r"|gloo|NCCL|TCPStore|Connection (reset|closed|refused)|Broken pipe|socket ?timeout",
    re.IGNORECASE,
)
_ROOT_CAUSE = re.compile(r"Root Cause.*?\brank\s*:\s*(\d+).*?\bexitcode\s*:\s*(-?\d+)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a job ended: the first rank that failed, its error, and the log with the details.

    Attributes:
        then: errors that followed from it in that rank, first to last.
    """

    message: str
    log: Path
    then: tuple[str, ...] = ()


def failure(run: RunDir, exit_code: int, attempt: Attempt | None = None) -> Failure:
    """Return the first failure of an attempt; of the latest attempt of a run on Slurm if none is given.

    In this order: an exception that is not a mere consequence of another rank's failure; a rank killed by a
    signal, as torchrun reports it; any exception; a rank or launcher that failed before training began.
    """
    records = error_records(run, attempt)
    own = [record for record in records if not is_echo(record)]
    if own:
        return _of_record(run, own[0])
    logs = list(_logs_of_attempt(run, attempt))
    rank, code = _root_cause(logs)
    if rank is not None and code < 0:
        return Failure(message=f"rank {rank} was killed by {_signal_name(-code)}", log=run.rank_log(rank))
    if records:
        return _of_record(run, records[0])
    if ended := _container_end(run):
        return Failure(message=ended, log=run.launcher_log)
    who = "the launcher" if rank is None else f"rank {rank}"
    message = f"{who} failed with exit code {exit_code if rank is None else code}"
    for log in logs:
        found = first_error(_text(log))
        if found:
            return Failure(message=f"{message}: {_one_line(found)}", log=log)
    return Failure(message=message, log=run.launcher_log)


def container_failed(run: RunDir) -> bool:
    """Return whether the run's container ended before the last step, and nobody had asked it to."""
    return any(line.startswith(CONTAINER_LINE) for line in _text(run.launcher_log).splitlines())


def _container_end(run: RunDir) -> str | None:
    """Return how the run's container ended, if it was killed or did not start."""
    lines = [line for line in _text(run.launcher_log).splitlines() if line.startswith(CONTAINER_LINE)]
    worth = [line for line in lines if not line.startswith(f"{CONTAINER_LINE}ended")]
    return worth[-1].removeprefix("nemolaunch: ") if worth else None


def is_echo(record: dict[str, Any]) -> bool:
    """Return whether an error is only a consequence of another rank's failure."""
    return bool(_CONSEQUENCES.search(f"{record['type']} {record['message']}"))


def is_told_to_exit(record: dict[str, Any]) -> bool:
    """Return whether a rank ended because it received SIGTERM."""
    return str(record["type"]) == "SIGTERMException"


def was_killed(run: RunDir) -> bool:
    """Return whether torchrun reports a rank that a signal other than SIGTERM ended."""
    rank, code = _root_cause(list(_logs_of_attempt(run, None)))
    return rank is not None and code < 0 and -code != signal.SIGTERM


def error_records(run: RunDir, attempt: Attempt | None = None) -> list[dict[str, Any]]:
    """Return the error records of all ranks that raised, earliest first: rank, time, type, message, start.

    Of a run on Slurm, those of one attempt; of the latest if none is given.
    """
    attempt = attempt or next(iter(attempts(run)[-1:]), None)
    records = []
    for path in run.logs.glob("rank*.error.json"):
        with contextlib.suppress(OSError, ValueError):
            record = read_json(path)
            if attempt is None or record.get("start", attempt.name) == attempt.name:
                records.append(record)
    return sorted(records, key=lambda record: float(record["time"]))


def _of_record(run: RunDir, record: dict[str, Any]) -> Failure:
    what = (
        "received SIGTERM" if is_told_to_exit(record) else f"{record['type']}: {_one_line(record['message'])}"
    )
    then = tuple(_one_line(text) for text in record.get("then", ()))
    return Failure(message=f"rank {record['rank']}: {what}", log=run.rank_log(int(record["rank"])), then=then)


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:LONGEST_MESSAGE]


def _signal_name(number: int) -> str:
    name = signal_name(number)
    return f"{name}, often sent by the kernel when memory runs out" if name == "SIGKILL" else name


def _root_cause(logs: list[Path]) -> tuple[int | None, int]:
    """Return rank and exit code (negative: a signal) of torchrun's first observed failure."""
    for log in logs:
        found = _ROOT_CAUSE.search(_text(log))
        if found:
            return int(found[1]), int(found[2])
    return None, 0


def _logs_of_attempt(run: RunDir, attempt: Attempt | None) -> Iterator[Path]:
    """Yield the stderr of the ranks, of torchrun and of the launcher, if newer than the saved plan.

    On Slurm, torchrun writes to one file per attempt, as do the ranks until they open their own logs.
    """
    attempt = attempt or next(iter(attempts(run)[-1:]), None)
    if attempt is not None:
        yield from run.nemo_run.glob(f"experiments/*/*/*/log-*_{attempt.job}_{attempt.restart}.out")
    with contextlib.suppress(OSError):
        started = run.plan.stat().st_mtime
        logs = [p for p in run.nemo_run.rglob("*.log") if p.stat().st_mtime >= started]
        yield from sorted(logs, key=lambda path: (path.name != "stderr.log", -len(path.parts), str(path)))
    yield run.launcher_log


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
