"""The wheel and the sdist are the same bytes each time, and hold all that the package needs."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def built(folder: Path, umask: int) -> dict[str, bytes]:
    """Return the files that a build makes, by name."""
    variables = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "PYTHONHASHSEED": str(umask)}
    command = [sys.executable, str(ROOT / ".ci" / "dist.py"), str(folder)]
    subprocess.run(command, check=True, env=variables, umask=umask, capture_output=True)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="builds what git tracks")
def test_two_builds_are_the_same_and_complete(tmp_path: Path) -> None:
    first, second = built(tmp_path / "a", 0o022), built(tmp_path / "b", 0o077)
    assert sorted(Path(name).suffix for name in first) == [".gz", ".whl"]
    assert first == second
    listed = subprocess.run(["git", "ls-files", "src"], cwd=ROOT, check=True, capture_output=True, text=True)
    tracked = {path.removeprefix("src/") for path in listed.stdout.splitlines() if (ROOT / path).is_file()}
    (wheel,) = (tmp_path / "a").glob("*.whl")
    assert tracked - set(zipfile.ZipFile(wheel).namelist()) == {
        path for path in tracked if path.endswith("README.md")
    }
