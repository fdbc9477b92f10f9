"""Two processes never write one run folder, and a dead one does not keep others out."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nemolaunch.errors import NemolaunchError
from nemolaunch.run.lock import STALE_S, RunLock


def held(path: Path, holder: str, age_s: float = 0.0) -> Path:
    path.write_text(holder + "\n")
    then = path.stat().st_mtime - age_s
    os.utime(path, (then, then))
    return path


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "run" / "lock"
    first, second = RunLock(path), RunLock(path)
    first.take()
    with pytest.raises(NemolaunchError, match=f"^process {os.getpid()} on {socket.gethostname()}"):
        second.take()
    first.release()
    second.take()
    second.release()
    assert not path.exists()


@pytest.mark.parametrize("holder", ["slurm 12 0", "local elsewhere 4711", "something else"])
def test_a_lock_that_is_touched_holds_and_one_that_is_not_does_not(tmp_path: Path, holder: str) -> None:
    path = held(tmp_path / "lock", holder, STALE_S - 30)
    with pytest.raises(NemolaunchError, match=r"is writing to .*; end it first"):
        RunLock(path).take()
    held(path, holder, STALE_S + 1)
    RunLock(path).take()
    assert path.read_text().startswith(f"local {socket.gethostname()} {os.getpid()} ")


def test_the_lock_of_a_dead_process_is_broken_at_once(tmp_path: Path) -> None:
    path = held(tmp_path / "lock", f"local {socket.gethostname()} {dead_pid()}")
    RunLock(path).take()
    assert str(os.getpid()) in path.read_text()


def test_the_lock_of_a_job_that_is_over_is_broken_at_once(tmp_path: Path) -> None:
    path = held(tmp_path / "lock", "slurm 12 0")
    RunLock(path, dead=lambda job: job == "12").take()
    assert str(os.getpid()) in path.read_text()


def test_a_lock_that_somebody_has_taken_over_is_left_to_them(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = RunLock(path)
    lock.take()
    held(path, "slurm 12 0")
    lock.release()
    assert path.exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NemolaunchError, match=r"cannot write to --output-dir .*/file/run"):
        RunLock(tmp_path / "file" / "run" / "lock").take()
