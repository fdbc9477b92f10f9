"""A replacement leaves the earlier file or folder, or the new one, whatever interrupts it, and no rubbish."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nemolaunch.system import renames, replacement
from nemolaunch.system.locks import Lock
from nemolaunch.system.replacement import complete_files, put_files, replacing, tidy


@pytest.fixture(params=["exchange", "two renames"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to replace: with renameat2, and as on a kernel or file system without it."""
    if request.param == "two renames":
        monkeypatch.setattr(renames, "_renameat2", lambda: None)
    return str(request.param)


def folder_of(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "weights").write_text(text)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_is_replaced_and_nothing_else_remains(tmp_path: Path, way: str) -> None:
    final = folder_of(tmp_path / "ckpt", "old")
    with replacing(final, lambda new: None) as new:
        folder_of(new, "new")
        assert (final / "weights").read_text() == "old"
    assert (final / "weights").read_text() == "new"
    assert names(tmp_path) == ["ckpt"]


@pytest.mark.parametrize("number", [1, 2])
def test_ctrl_c_within_a_rename_keeps_the_earlier_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    final = folder_of(tmp_path / "ckpt", "old")
    monkeypatch.setattr(renames, "_renameat2", lambda: None)
    real, calls = os.rename, []

    def rename(source: Path, target: Path) -> None:
        calls.append(source)
        if number == 2 == len(calls):
            raise KeyboardInterrupt  # before the second rename
        real(source, target)
        if number == 1 == len(calls):
            raise KeyboardInterrupt  # after the first

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(KeyboardInterrupt), replacing(final, lambda new: None) as new:
        folder_of(new, "new")
    assert (final / "weights").read_text() == "old"
    assert names(tmp_path) == ["ckpt"]


KILLED = """
import os, signal, sys
from pathlib import Path
from nemolaunch.system import renames
from nemolaunch.system.replacement import put_files, replacing
renames._renameat2 = lambda: None
real, left = os.rename, int(sys.argv[1])
def rename(source, target):
    global left
    real(source, target)
    left -= 1
    if left == 0: os.kill(os.getpid(), signal.SIGKILL)
os.rename = rename
folder = Path(sys.argv[2])
if sys.argv[3] == "folder":
    with replacing(folder / "ckpt", lambda new: None) as new:
        new.mkdir(); (new / "weights").write_text("new")
else:
    work = folder / "work"
    put_files([(work / n, folder / f"data.{n}") for n in ("bin", "json", "idx")], work)
"""


def killed_after(renames_done: int, folder: Path, what: str) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(renames_done), str(folder), what], check=False)
    assert done.returncode == -signal.SIGKILL


def test_after_a_kill_between_two_renames_the_next_command_restores_the_earlier_folder(
    tmp_path: Path,
) -> None:
    final = folder_of(tmp_path / "ckpt", "old")
    killed_after(1, tmp_path, "folder")
    assert not final.exists()
    (leftover,) = tidy(final)
    assert leftover.name.startswith(".ckpt.partial-")
    assert (final / "weights").read_text() == "old"
    assert names(tmp_path) == ["ckpt"]


@pytest.mark.parametrize("number", range(1, 7))
def test_files_that_belong_together_are_completed_by_the_next_command(tmp_path: Path, number: int) -> None:
    (tmp_path / "work").mkdir()
    for name in ("bin", "json", "idx"):
        (tmp_path / f"data.{name}").write_text("old")
        (tmp_path / "work" / name).write_text("new")
    killed_after(number, tmp_path, "files")
    texts = {
        (tmp_path / f"data.{n}").read_text() for n in ("bin", "idx") if (tmp_path / f"data.{n}").exists()
    }
    assert len(texts) <= 1 or not (tmp_path / "data.idx").exists()  # never a wrong pair
    assert complete_files(tmp_path / "work")
    assert {(tmp_path / f"data.{n}").read_text() for n in ("bin", "json", "idx")} == {"new"}
    assert not complete_files(tmp_path / "work")
    assert names(tmp_path / "work") == []


@pytest.mark.parametrize("number", range(1, 7))
def test_files_are_restored_if_one_cannot_be_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    files = [(work / name, tmp_path / f"data.{name}") for name in ("bin", "json", "idx")]
    for new, final in files:
        new.write_text("new")
        final.write_text("old")
    real, calls = os.rename, []

    def rename(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == number:
            raise OSError(5, "Input/output error", str(source))
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(OSError, match="Input/output"):
        put_files(files, work)
    assert [final.read_text() for _, final in files] == ["old"] * 3
    assert [new.read_text() for new, _ in files] == ["new"] * 3


def test_the_unfinished_folder_of_a_running_command_is_left_alone(tmp_path: Path) -> None:
    work = tmp_path / ".ckpt.partial-x"
    work.mkdir()
    lock = Lock(work / replacement.LOCK)
    lock.take()
    assert tidy(tmp_path / "ckpt") == []
    lock.release()
    (work / replacement.LOCK).write_text("")  # as a full disk leaves it
    assert tidy(tmp_path / "ckpt") == []
    os.utime(work / replacement.LOCK, (1, 1))
    assert tidy(tmp_path / "ckpt") == [work]


def test_a_name_that_somebody_has_taken_meanwhile_is_not_overwritten(tmp_path: Path, way: str) -> None:
    final = tmp_path / "model.bin"

    def taken(new: Path) -> None:
        final.write_text("theirs")

    (tmp_path / "x").write_text("new")
    final.write_text("theirs")
    with pytest.raises(FileExistsError):
        renames.rename_new(tmp_path / "x", final)
    assert final.read_text() == "theirs"
