"""Of all that a failing job leaves behind, the user is told what went wrong first."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nemolaunch.observe.failure import failure
from nemolaunch.run.folder import RunDir

# as torchrun prints it
REPORT = """\
Root Cause (first observed failure):
[0]:
  time      : 2026-11-21_01:52:37
  host      : localhost
  rank      : {rank} (local_rank: {rank})
  exitcode  : {code} (pid: 32539)
  error_file: <N/A>
"""
LOST_PEER = ("RuntimeError", "[gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer")
STOPPED = ("SIGTERMException", "")
OWN = ("IndexError", "index out of range\n in self")


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path)
    run.logs.mkdir()
    run.plan.write_text("{}")
    run.launcher_log.write_text("")
    return run


def raised(run: RunDir, rank: int, time: float, error: tuple[str, str]) -> None:
    record = {"rank": rank, "time": time, "type": error[0], "message": error[1]}
    run.rank_error(rank).write_text(json.dumps(record))


def reported(run: RunDir, rank: int, code: int) -> Path:
    folder = run.nemo_run / "experiments" / "e" / "e_1" / "pretrain" / "nemo_run" / "pretrain-x"
    own = folder / "torchelastic" / "attempt_0" / str(rank) / "stderr.log"
    for path in (own, folder / "pretrain" / "0" / "stderr.log"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    path.write_text(REPORT.format(rank=rank, code=code))
    return own


def test_the_earliest_exception(run: RunDir) -> None:
    raised(run, 0, 12.0, ("ValueError", "later"))
    raised(run, 1, 11.0, OWN)
    found = failure(run, 1)
    assert found.message == "rank 1: IndexError: index out of range in self"
    assert found.log == run.rank_log(1)


@pytest.mark.parametrize("echo", [LOST_PEER, STOPPED])
def test_an_exception_of_its_own_comes_before_echoes(run: RunDir, echo: tuple[str, str]) -> None:
    raised(run, 0, 10.0, echo)
    raised(run, 1, 11.0, OWN)
    reported(run, 0, -6)
    assert failure(run, 1).message.startswith("rank 1: IndexError")


def test_a_killed_rank_comes_before_echoes(run: RunDir) -> None:
    raised(run, 0, 10.0, LOST_PEER)
    reported(run, 1, -9)
    found = failure(run, 1)
    assert found.message.startswith("rank 1 was killed by SIGKILL")
    assert found.log == run.rank_log(1)


def test_an_echo_is_better_than_nothing(run: RunDir) -> None:
    raised(run, 0, 10.0, LOST_PEER)
    reported(run, 0, 1)
    assert "Connection reset by peer" in failure(run, 1).message


def test_a_rank_that_failed_before_it_could_write_its_error(run: RunDir) -> None:
    log = reported(run, 1, 1)
    log.write_text("ModuleNotFoundError: No module named 'nemo'\n")
    found = failure(run, 1)
    assert found.message == "rank 1 failed with exit code 1: ModuleNotFoundError: No module named 'nemo'"
    assert found.log == log


def test_a_launcher_that_failed(run: RunDir) -> None:
    run.launcher_log.write_text("Traceback …\nModuleNotFoundError: No module named 'nemo_run'\n")
    found = failure(run, 3)
    assert found.message.startswith("the launcher failed with exit code 3: ModuleNotFoundError: No module")
    assert found.log == run.launcher_log


def test_reports_of_earlier_starts_do_not_count(run: RunDir) -> None:
    reported(run, 1, -9)
    later = run.plan.stat().st_mtime + 100
    os.utime(run.plan, (later, later))
    assert failure(run, 1).message == "the launcher failed with exit code 1"
