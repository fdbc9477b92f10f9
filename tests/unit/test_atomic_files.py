"""Files written atomically: old content or new, whatever happens, and no temporary files left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nemolaunch.system.atomic_files import (
    append_text,
    atomic_file,
    atomic_folder,
    move,
    write_bytes,
    write_json,
    write_long_json,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_each_writer_writes_its_kind(tmp_path: Path) -> None:
    """Also into a folder that does not exist yet, and with text that is not ASCII."""
    folder = tmp_path / "new" / "folder"
    write_text(folder / "a", "日本\n")
    write_json(folder / "b", {"name": "é"})
    write_bytes(folder / "c", b"\xff")
    assert (folder / "a").read_text(encoding="utf-8") == "日本\n"
    assert (folder / "b").read_text(encoding="utf-8") == '{\n "name": "é"\n}\n'
    assert (folder / "c").read_bytes() == b"\xff"
    assert names(folder) == ["a", "b", "c"]


@pytest.mark.parametrize(("number", "lines"), [(0, 4), (1, 6), (10_000, 10_005), (10_001, 106)])
def test_a_long_list_takes_a_line_for_each_item_or_for_100(number: int, lines: int, tmp_path: Path) -> None:
    value = {"name": "ä", "sources": [{"path": f"{i} 中, [", "columns": ["text"]} for i in range(number)]}
    write_long_json(tmp_path / "long.json", value)
    text = (tmp_path / "long.json").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert len(text.splitlines()) == lines


def test_an_error_in_the_middle_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_text(path, "old")

    def fail() -> None:
        with atomic_file(path, "w") as file:
            file.write("half of the new")
            file.flush()
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_a_kill_in_the_middle_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_text(path, "old")
    code = (
        "import os, signal, sys; from pathlib import Path; from nemolaunch.system.atomic_files import atomic_file\n"
        "with atomic_file(Path(sys.argv[1]), 'w') as file:\n"
        "    file.write('half of the new'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    write_text(path, "new")
    assert path.read_text() == "new"


def test_concurrent_writers_do_not_mix(tmp_path: Path) -> None:
    """Threads of several processes write one file; every reader sees one of the contents, complete."""
    path = tmp_path / "a"
    write_text(path, "0" * 20_000)
    code = (
        "import sys, threading; from pathlib import Path; from nemolaunch.system.atomic_files import write_text\n"
        "def work(digit):\n"
        "    for _ in range(20): write_text(Path(sys.argv[1]), digit * 20_000, durable=False)\n"
        "threads = [threading.Thread(target=work, args=(d,)) for d in sys.argv[2]]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), digits]) for digits in ("12", "34")]
    while any(writer.poll() is None for writer in writers):
        text = path.read_text()
        assert len(text) == 20_000
        assert len(set(text)) == 1
    assert [writer.returncode for writer in writers] == [0, 0]
    assert names(tmp_path) == ["a"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a", "x")
        with atomic_folder(tmp_path / "folder") as folder:
            (folder / "b").touch()
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750


def test_a_name_as_long_as_a_file_system_takes(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 127)
    write_text(path, "x")
    assert names(tmp_path) == [path.name]


def test_a_folder_that_cannot_be_written_is_an_error_of_the_system(tmp_path: Path) -> None:
    """Callers turn it into a message; the file named is one in that folder."""
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        write_text(tmp_path / "file" / "below" / "a", "x")
    folder = tmp_path / "closed"
    folder.mkdir()
    write_text(folder / "a", "old")
    folder.chmod(0o500)
    try:
        if os.access(folder, os.W_OK):
            pytest.skip("this user may write everywhere")
        with pytest.raises(PermissionError, match="closed"):
            write_text(folder / "a", "new")
    finally:
        folder.chmod(0o700)
    assert (folder / "a").read_text() == "old"


def test_a_folder_without_permission_to_list_it_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "drop"
    folder.mkdir()
    folder.chmod(0o300)
    try:
        write_text(folder / "a", "x")
    finally:
        folder.chmod(0o700)
    assert names(folder) == ["a"]


def test_a_folder_is_replaced_as_one(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    for name in ("one", "two"):
        with atomic_folder(target) as folder:
            (folder / name).write_text(name)
            assert not (target / name).exists()
    assert names(target) == ["two"]

    def fail() -> None:
        with atomic_folder(target) as folder:
            (folder / "three").touch()
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert names(target) == ["two"]
    assert names(tmp_path) == ["folder"]


def test_a_finished_file_moves_to_its_name(tmp_path: Path) -> None:
    (tmp_path / "part").write_text("new")
    (tmp_path / "final").write_text("old")
    move(tmp_path / "part", tmp_path / "final")
    assert names(tmp_path) == ["final"]
    assert (tmp_path / "final").read_text() == "new"


def test_appended_lines_of_threads_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "log" / "lines"

    def append(letter: str) -> None:
        for _ in range(5):
            append_text(path, letter * 500 + "\n")

    threads = [threading.Thread(target=append, args=(letter,)) for letter in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = path.read_text().splitlines()
    assert sorted(lines) == sorted(d * 500 for d in "abc" for _ in range(5))
