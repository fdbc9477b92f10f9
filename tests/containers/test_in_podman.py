"""Runs in a real podman: they train, end when asked to, survive what they should, and say why they failed."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers.podman import IMAGE, IMAGE_OF_BRIDGE, NEW, Command, needs_bridge, wait_for

from nemolaunch.observe.status import explanation, status
from nemolaunch.run.folder import RunDir
from nemolaunch.system import processes

SECRET = "hf_not-for-anybodys-eyes"


def words_of_all_processes() -> bytes:
    """The command lines of every process of this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes())
        except OSError:
            continue
    return b"\n".join(found)


def client_of(run: Path) -> int:
    """The process of `podman run`."""
    for pid in processes.members(run):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if words[:2] == [b"podman", b"run"]:
            return pid
    raise AssertionError("podman does not run")


# image, further words, and what is in its checkpoints
IN: dict[str, tuple[str, list[str], str]] = {
    "nemo2": (IMAGE, [], "weights"),
    "bridge": (IMAGE_OF_BRIDGE, ["--backend", "bridge"], "run_config.yaml"),
    "auto": (NEW, ["--backend", "auto"], "run_config.yaml"),  # the image has nothing but Megatron-Bridge
}


TRAINED_BY = [
    "nemo2",
    pytest.param("bridge", marks=[needs_bridge, pytest.mark.long]),
    pytest.param("auto", marks=needs_bridge),
]


def pretrain(command: Command, name: str, *words: str) -> list[str]:
    """The words of a training in one of these images."""
    image, more, _ = IN[name]
    return command.pretrain(*words, *more, image=image)


@pytest.mark.parametrize("name", TRAINED_BY)
def test_a_run_trains_in_its_container_and_outlives_its_terminal(command: Command, name: str) -> None:
    started = command.start(pretrain(command, name, "--max-steps", "5"), HF_TOKEN=SECRET)
    wait_for(lambda: (command.run / "logs" / "rank0.log").exists())
    inspected = command.podman.says("inspect", command.podman.running()).stdout
    assert '"Pid"' in inspected
    assert SECRET not in inspected
    assert SECRET.encode() not in words_of_all_processes()
    started.send_signal(signal.SIGHUP)
    assert started.wait(300) != 0
    code, said = command.finish(["follow", str(command.run)])
    assert code == 0, said
    assert "finished step 5" in said
    assert [row["step"] for row in command.rows()] == [1, 2, 3, 4, 5]
    last = RunDir(command.run).last_checkpoint()
    assert last is not None
    assert (last / IN[name][2]).exists()
    assert last.stat().st_uid == os.getuid()
    assert status(command.run).state == "finished"
    assert command.podman.says("ps", "--all", "--quiet").stdout == ""
    files = [path for path in command.run.rglob("*") if path.is_file()]
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize("name", TRAINED_BY[:2])
def test_ctrl_c_saves_and_a_killed_engine_does_not_end_a_resumed_run(command: Command, name: str) -> None:
    started = command.start(pretrain(command, name, "--max-steps", "100000"))
    wait_for(command.rows)
    started.send_signal(signal.SIGINT)
    assert started.wait(900) == 130
    saved = status(command.run)
    assert (saved.state, saved.detail) == ("stopped", "interrupted")
    assert saved.checkpoint_step == saved.step > 0  # of the step it was in, not of an interval
    assert not processes.members(command.run)

    code, said = command.finish(["resume", str(command.run), "--detach"])
    assert code == 0, said
    wait_for(lambda: command.rows()[-1]["step"] > saved.step)
    os.kill(client_of(command.run), signal.SIGKILL)
    done = command.rows()[-1]["step"]
    wait_for(lambda: command.rows()[-1]["step"] > done)
    assert (status(command.run).state, status(command.run).detail) == ("running", "in podman on this machine")
    code, said = command.finish(["cancel", str(command.run)])
    assert code == 0, said
    ended = status(command.run)
    assert (ended.state, ended.detail) == ("stopped", "cancelled by the user")
    assert ended.checkpoint_step == ended.step > saved.step
    losses = {row["step"]: row["loss"] for row in command.rows()}
    assert sorted(losses) == list(range(1, ended.step + 1))  # no step is missing, and none was done twice


def test_a_killed_container_is_diagnosed(command: Command) -> None:
    code, said = command.finish(command.pretrain("--max-steps", "5", "--detach"))
    assert code == 0, said
    wait_for(lambda: (command.run / "logs" / "rank0.log").exists())
    command.podman.says("kill", "--signal", "KILL", command.podman.running())
    wait_for(lambda: not processes.members(command.run))
    now = status(command.run)
    assert (now.state, now.detail) == ("failed", "the container was killed by SIGKILL (exit code 137)")
    found = explanation(RunDir(command.run), now)
    assert found is not None
    assert found.cause is not None
    assert found.cause.code == "host-memory"


def test_a_missing_image_is_named_with_the_command_that_fetches_it(command: Command) -> None:
    words = command.pretrain("--max-steps", "5", image="localhost/nowhere:1")
    code, said = command.finish([*words, "--dry-run"])
    assert code == 1
    assert (
        "-I localhost/nowhere:1 is not on this machine; fetch it with `podman pull localhost/nowhere:1`"
        in said
    )
    code, said = command.finish([*words, "--force", "container-image"])  # it may have gone after planning
    assert code == 1
    assert "the container did not start (exit code 125): Error: localhost/nowhere:1: image not known" in said
    assert "[container]" in said
    assert "Traceback" not in said


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_is_diagnosed(command: Command, small_disk: Path) -> None:
    command.run = small_disk / "run"
    code, said = command.finish(command.pretrain("--max-steps", "5", "--detach", "--force", "disk"))
    assert code == 0, said
    wait_for(lambda: (command.run / "logs" / "rank0.log").exists())
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "filler").write_bytes(bytes(2**25))
    wait_for(lambda: not processes.members(command.run))
    now = status(command.run)
    assert now.state == "failed"
    found = explanation(RunDir(command.run), now)
    assert found is not None
    assert found.cause is not None
    assert found.cause.code == "disk-full"
