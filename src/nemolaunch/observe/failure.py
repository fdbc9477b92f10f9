"""Why a run failed, from what its processes left in the run folder."""

from __future__ import annotations

import contextlib
import json
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.run.attempts import Start, starts
from nemolaunch.run.folder import RunDir

LONGEST_MESSAGE = 600
# What a rank says when another one has gone: never what went wrong first, if there is anything else
_CONSEQUENCES = re.compile(
    r"SIGTERMException|Dist(Backend|Network|Store)Error|ConnectionError|ConnectionResetError|BrokenPipeError"
    r"|gloo|NCCL|TCPStore|Connection (reset|closed|refused)|Broken pipe|socket ?timeout",
    re.IGNORECASE,
)
_ROOT_CAUSE = re.compile(r"Root Cause.*?\brank\s*:\s*(\d+).*?\bexitcode\s*:\s*(-?\d+)", re.DOTALL)
_EXCEPTION = re.compile(r"^(?:\[default\d+\]:)?((?:\w+\.)*\w*(?:Error|Exception)\b.*)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a job ended: the first rank that failed, its error, and where to read on."""

    message: str
    log: Path


def failure(run: RunDir, exit_code: int, start: Start | None = None) -> Failure:
    """What went wrong first, in the newest start of a run on Slurm where none is given.

    In this order: an exception that is more than the echo of another rank's end; a rank ended by a signal, as
    torchrun reports it; any exception; a rank or launcher that failed before training began.
    """
    records = error_records(run, start)
    own = [record for record in records if not is_echo(record)]
    if own:
        return _of_record(run, own[0])
    logs = list(_logs_of_this_start(run, start))
    rank, code = _root_cause(logs)
    if rank is not None and code < 0:
        return Failure(message=f"rank {rank} was ended by {_signal_name(-code)}", log=run.rank_log(rank))
    if records:
        return _of_record(run, records[0])
    who = "the launcher" if rank is None else f"rank {rank}"
    message = f"{who} ended with exit code {exit_code if rank is None else code}"
    for log in logs:
        found = _EXCEPTION.findall(_text(log))
        if found:
            return Failure(message=f"{message}: {_one_line(found[-1])}", log=log)
    return Failure(message=message, log=run.launcher_log)


def is_echo(record: dict[str, Any]) -> bool:
    """Whether an error is what a rank says when another one has gone."""
    return bool(_CONSEQUENCES.search(f"{record['type']} {record['message']}"))


def error_records(run: RunDir, start: Start | None = None) -> list[dict[str, Any]]:
    """What each rank that raised wrote down, the earliest first: rank, time, type, message, start.

    Of a run on Slurm those of one start of a job, the newest where none is given.
    """
    start = start or next(iter(starts(run)[-1:]), None)
    records = []
    for path in run.logs.glob("rank*.error.json"):
        with contextlib.suppress(OSError, ValueError):
            record = json.loads(path.read_text(encoding="utf-8"))
            if start is None or record.get("start", start.name) == start.name:
                records.append(record)
    return sorted(records, key=lambda record: float(record["time"]))


def _of_record(run: RunDir, record: dict[str, Any]) -> Failure:
    message = f"rank {record['rank']}: {record['type']}: {_one_line(record['message'])}"
    return Failure(message=message, log=run.rank_log(int(record["rank"])))


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:LONGEST_MESSAGE]


def _signal_name(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    return f"{name}: often the kernel, when memory runs out" if name == "SIGKILL" else name


def _root_cause(logs: list[Path]) -> tuple[int | None, int]:
    """Rank and exit code (negative: a signal) of torchrun's first observed failure."""
    for log in logs:
        found = _ROOT_CAUSE.search(_text(log))
        if found:
            return int(found[1]), int(found[2])
    return None, 0


def _logs_of_this_start(run: RunDir, start: Start | None) -> Iterator[Path]:
    """The ranks' own stderr, torchrun's and the launcher's, as far as they are newer than the saved plan.

    On Slurm torchrun writes, as all ranks do before they have their own logs, into one file a start.
    """
    start = start or next(iter(starts(run)[-1:]), None)
    if start is not None:
        yield from run.nemo_run.glob(f"experiments/*/*/*/log-*_{start.job}_{start.restart}.out")
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
