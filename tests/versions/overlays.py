"""Releases of NeMo, Megatron-Bridge and Megatron-Core laid over an environment that has everything else they need.

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

from nemolaunch.catalogue.version_pairs import BridgePair, Pair, bridge_pairs, pairs

FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nemolaunch-tests"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"  # Megatron-Core has compiled code


class CannotDownloadError(Exception):
    """pip did not get the packages; its last line."""


def proven() -> list[Pair]:
    """The pairs that the table says were tested, oldest first."""
    return [pair for pair in pairs() if pair.proven]


def overlay(pair: Pair) -> Path:
    """The folder with a pair's packages, downloaded once."""
    packages = [f"nemo_toolkit=={pair.nemo}", f"megatron-core=={pair.megatron}"]
    return _downloaded(f"nemo-{pair.nemo}-megatron-{pair.megatron}", packages)


def bridge_overlay(pair: BridgePair) -> Path:
    """The same for Megatron-Bridge; Megatron-Core's newer releases are built, which needs a C++ compiler."""
    packages = [f"megatron-bridge=={pair.bridge}", f"megatron-core=={pair.megatron}"]
    return _downloaded(f"bridge-{pair.bridge}-megatron-{pair.megatron}", packages, "--ignore-requires-python")


def _downloaded(name: str, packages: list[str], *options: str) -> Path:
    folder = FOLDER / f"python{PYTHON}-{name}"
    if folder.exists():
        return folder
    FOLDER.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=FOLDER))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(
        [*pip, *options, "--target", str(new), *packages], capture_output=True, text=True, check=False
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
    for one in bridge_pairs():
        if one.fails is None:
            print(f"{one}: {bridge_overlay(one)}", flush=True)
