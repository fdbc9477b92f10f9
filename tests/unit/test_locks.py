"""One process holds a lock, whatever links, kills, suspended processes and clocks do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nemolaunch.errors import NemolaunchError
from nemolaunch.run.lock import RunLock
from nemolaunch.system import locks
from nemolaunch.system.locks import Held, Lock
from nemolaunch.system.process_identity import ProcessIdentity, this_process

HOLD = """
import sys, time
from pathlib import Path
from nemolaunch.system.locks import Lock
Lock(Path(sys.argv[1])).take()
print("held", flush=True)
time.sleep(60)
"""
RACE = """
import sys
from pathlib import Path
from nemolaunch.system.locks import Held, Lock
sys.stdin.readline()
try:
    Lock(Path(sys.argv[1])).take()
    print("held", flush=True)
    sys.stdin.readline()
except Held:
    print("refused", flush=True)
"""


def start(code: str, path: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", code, str(path)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_stale_lock_is_taken_by_exactly_one_of_many(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("local elsewhere 12 3 4\n")
    os.utime(path, (1, 1))
    processes = [start(RACE, path) for _ in range(6)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [said(process) for process in processes]
    for process in processes:
        process.communicate("end\n", timeout=20)
    assert sorted(answers) == ["held"] + 5 * ["refused"]


def test_the_lock_of_a_killed_process_is_free_and_that_of_a_stopped_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    process = start(HOLD, path)
    assert said(process) == "held"
    process.send_signal(signal.SIGSTOP)
    os.utime(path, (1, 1))  # nobody has touched it for a long time
    with pytest.raises(Held):
        Lock(path).take()
    process.kill()
    process.wait()
    lock = Lock(path)
    lock.take()
    assert lock.is_mine()
    lock.release()
    assert not path.exists()


def test_a_process_id_that_another_process_has_now_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    me = this_process()
    path.write_text(f"local {me.host} {me.pid} {int(me.start) - 1} {me.boot}\n")
    assert RunLock(path).local_holder() is None
    path.write_text(f"local {me.host} {me.pid} {me.start} {me.boot}\n")
    assert RunLock(path).local_holder() == me.pid
    path.write_text(f"local {me.host} {me.pid} {me.start} an-earlier-boot/1\n")
    assert RunLock(path).local_holder() is None
    Lock(path).take()


def test_a_process_in_another_container_of_this_machine_cannot_be_seen() -> None:
    me = this_process()
    boot = me.boot.partition("/")[0]
    assert ProcessIdentity(me.host, 1, "7", f"{boot}/1").is_alive is None
    assert ProcessIdentity("elsewhere", 1, "7", me.boot).is_alive is None
    assert me.is_alive


@pytest.mark.parametrize("target", ["precious", "missing"])
def test_a_link_is_neither_followed_nor_emptied(tmp_path: Path, target: str) -> None:
    (tmp_path / "precious").write_text("PRECIOUS")
    (tmp_path / "lock").symlink_to(tmp_path / target)
    with pytest.raises(NemolaunchError, match="is a link, not a lock: remove it"):
        RunLock(tmp_path / "lock").take()
    assert (tmp_path / "precious").read_text() == "PRECIOUS"
    assert not (tmp_path / "missing").exists()


def test_a_fifo_under_the_name_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock")
    with pytest.raises(NemolaunchError, match="cannot write"), locks.held(tmp_path / "lock", "busy"):
        pass


def test_a_lock_dated_in_the_future_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("local elsewhere 4711\n")
    os.utime(path, (time.time() + 9999, time.time() + 9999))
    with pytest.raises(NemolaunchError, match=rf"The lock {path} is dated in the future"):
        RunLock(path).take()


def test_the_holder_notices_that_it_has_lost_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "TOUCH_EVERY_S", 0.05)
    path = tmp_path / "lock"
    lock = RunLock(path)
    lock.take()
    path.with_name("theirs").write_text("slurm 12 0\n")
    os.replace(path.with_name("theirs"), path)  # as a batch script takes it over
    for _ in range(100):
        if lock.is_lost:
            break
        time.sleep(0.05)
    assert lock.is_lost
    lock.release()
    assert path.read_text() == "slurm 12 0\n"


def test_the_record_names_host_process_and_start(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock")
    lock.take()
    kind, host, pid, start_ticks, boot = (tmp_path / "lock").read_text().split()
    assert (kind, host, pid) == ("local", socket.gethostname(), str(os.getpid()))
    stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    assert (
        start_ticks == stat[22 - 3]
    )  # proc(5): field 22, counted from 1; the first after the name is the third
    assert boot.startswith(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    lock.release()
