"""Releases of NeMo and Megatron-Core laid over the environment, which has everything else they need.

    python tests/versions/overlays.py

downloads all that the tests use from PyPI: about 75 MB each, into ~/.cache/nemolaunch-tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from nemolaunch.catalogue.version_pairs import Pair, pairs

FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nemolaunch-tests"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"  # Megatron-Core has compiled code


class CannotDownloadError(Exception):
    """pip did not get the packages; its last line."""


def proven() -> list[Pair]:
    """The pairs that the table says were tested, oldest first."""
    return [pair for pair in pairs() if pair.proven]


def overlay(pair: Pair) -> Path:
    """The folder with a pair's packages, downloaded once."""
    folder = FOLDER / f"python{PYTHON}-nemo-{pair.nemo}-megatron-{pair.megatron}"
    if folder.exists():
        return folder
    FOLDER.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=FOLDER))
    packages = [f"nemo_toolkit=={pair.nemo}", f"megatron-core=={pair.megatron}"]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(
        [*pip, "--target", str(new), *packages], capture_output=True, text=True, check=False
    )
    if done.returncode:
        shutil.rmtree(new)
        raise CannotDownloadError((done.stderr.strip().splitlines() or ["pip failed"])[-1])
    new.chmod(0o755)
    new.rename(folder)
    return folder


if __name__ == "__main__":
    for each in proven():
        print(f"{each}: {overlay(each)}", flush=True)
