"""Ranks that are forked from a process that is kept warm do what newly started ones do; the right values are theirs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e.command import finished, processes_about, started, wait_for, with_other_ids, words

from nemolaunch.observe.status import status

ROOT = Path(__file__).parents[2]
SERVER = "nemolaunch.launching.warm_server"
BRIDGE = ROOT / ".venv-bridge" / "bin" / "python"


@pytest.fixture(scope="module")
def runtime() -> Iterator[Path]:
    """A folder for the sockets, which the tests share as a user's commands do; short, as a socket's name must be."""
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="nw"))
    yield folder
    for pid in servers(folder):
        os.kill(pid, signal.SIGTERM)
    shutil.rmtree(folder)


def servers(runtime: Path) -> list[int]:
    """The processes that wait for jobs, without their forks, which are leaders of sessions of their own runs."""
    found = [pid for pid, command in processes_about(runtime).items() if SERVER in command]
    return [pid for pid in found if b"NEMOLAUNCH_RUN_ID=" not in Path(f"/proc/{pid}/environ").read_bytes()]


def warm(runtime: Path, command: list[str], *variables: str) -> list[str]:
    """The command, with a warm process whose sockets are in that folder."""
    return ["env", f"XDG_RUNTIME_DIR={runtime}", *variables, *command, "--keep-warm", "5"]


def steps(run: Path) -> list[tuple[Any, ...]]:
    """What is recorded of each step, besides times."""
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [(row["step"], row["loss"], row["grad_norm"], row["lr"]) for row in rows if "loss" in row]


def test_the_losses_are_those_of_a_cold_start(data: str, tmp_path: Path, runtime: Path) -> None:
    cold, first, second = (tmp_path / name for name in ("cold", "first", "second"))
    for folder in (cold, first, second):
        folder.mkdir()
    short = ("--max-steps", "4", "--checkpoint-every", "2")
    assert finished(words(cold, data, *short), cold).returncode == 0
    for folder in (first, second):
        secret = f"HF_TOKEN=hf_{folder.name}Secret0123456789abc"
        done = finished(warm(runtime, words(folder, data, *short), secret), folder)
        assert done.returncode == 0, done.stderr
        assert steps(folder / "run") == steps(cold / "run")
        assert {path.name for path in (folder / "run" / "checkpoints").iterdir()} == {
            path.name for path in (cold / "run" / "checkpoints").iterdir()
        }
        assert processes_about(folder / "run") == {}
        (server,) = servers(runtime)
        assert b"hf_" not in Path(f"/proc/{server}/environ").read_bytes()
    log = next(runtime.rglob("*.log")).read_text()
    assert "hf_" not in log
    phases = [(folder / "run" / "logs" / "phases.jsonl").read_text() for folder in (cold, first, second)]
    assert [text.count("importing NeMo") for text in phases] == [1, 1, 1]


def test_a_failing_rank_is_named(data: str, tmp_path: Path, runtime: Path) -> None:
    """Data of a larger vocabulary, from elsewhere, trained on against the advice of the checks."""
    foreign = with_other_ids(tmp_path / "foreign", data)
    forced = words(tmp_path, str(foreign), "--max-steps", "3", "--force", "token-ids")
    done = finished(warm(runtime, forced), tmp_path)
    assert done.returncode == 1
    _, message, *_, cause, _, log = done.stderr.splitlines()
    assert re.fullmatch(r"error: the job failed\. rank [01]: IndexError: index out of range in self", message)
    assert cause.endswith("[token-ids]")
    assert "IndexError" in Path(log.split(maxsplit=1)[1]).read_text()
    assert processes_about(tmp_path / "run") == {}


@pytest.mark.parametrize("at_first_step", [True, False])
def test_ctrl_c_saves_and_ends_every_process_but_the_warm_one(
    data: str, tmp_path: Path, runtime: Path, at_first_step: bool
) -> None:
    run = tmp_path / "run"
    process = started(warm(runtime, words(tmp_path, data, "--max-steps", "10000")), tmp_path)
    wait_for(lambda: processes_about(run, "RANK="), process)
    if at_first_step:
        wait_for(lambda: (run / "metrics.jsonl").exists() and steps(run), process)
        assert len(processes_about(run, "LOCAL_RANK=")) >= 2
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130
    assert processes_about(run) == {}
    assert (tmp_path / "err").read_text() == ""
    now = status(run)
    assert (now.state, now.detail) == ("stopped", "interrupted")
    assert now.checkpoint_step == now.step
    assert now.step == 0 or at_first_step
    assert len(servers(runtime)) == 1


def test_a_command_that_is_killed_ends_its_job(data: str, tmp_path: Path, runtime: Path) -> None:
    run = tmp_path / "run"
    process = started(warm(runtime, words(tmp_path, data, "--max-steps", "10000")), tmp_path)
    wait_for(lambda: (run / "metrics.jsonl").exists() and steps(run), process)
    process.kill()
    process.wait()
    for _ in range(400):
        if not processes_about(run):
            break
        signal.sigtimedwait([], 0.1)
    assert processes_about(run) == {}


@pytest.mark.long
def test_another_environment_gets_a_process_of_its_own(data: str, tmp_path: Path, runtime: Path) -> None:
    """Libraries read OMP_NUM_THREADS when they are imported."""
    before = servers(runtime)
    short = words(tmp_path, data, "--max-steps", "1")
    done = finished(warm(runtime, short, "OMP_NUM_THREADS=2"), tmp_path)
    assert done.returncode == 0, done.stderr
    (server,) = servers(runtime)
    assert server not in before
    assert b"OMP_NUM_THREADS=2\0" in Path(f"/proc/{server}/environ").read_bytes()


@pytest.mark.long
@pytest.mark.skipif(not BRIDGE.exists(), reason="needs `make install-bridge`")
def test_bridge_is_kept_warm_in_its_own_environment(data: str, tmp_path: Path, runtime: Path) -> None:
    cold, first, second = (tmp_path / name for name in ("cold", "first", "second"))
    for folder in (cold, first, second):
        folder.mkdir()
    short = ("--max-steps", "4", "--checkpoint-every", "2", "--backend", "bridge", "--python", str(BRIDGE))
    assert finished(words(cold, data, *short), cold).returncode == 0
    for folder in (first, second):
        done = finished(warm(runtime, words(folder, data, *short)), folder)
        assert done.returncode == 0, done.stderr
        assert steps(folder / "run") == steps(cold / "run")
        assert processes_about(folder / "run") == {}


def test_a_folder_that_others_can_enter_is_refused(data: str, tmp_path: Path) -> None:
    folder = tmp_path / f"nemolaunch-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    done = finished(warm(tmp_path, words(tmp_path, data, "--max-steps", "1")), tmp_path)
    assert done.returncode == 1
    assert f"{folder} must be a folder that only you can enter" in done.stderr
    assert "Traceback" not in done.stderr
    assert subprocess.run(["ls", "-A", folder], capture_output=True, check=True).stdout == b""
