"""One podman for all tests of this folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers.podman import ROOT, Command, Podman


@pytest.fixture(scope="session")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """Podman with an image of its own.

    Skips without podman, unless NEMOLAUNCH_REQUIRE_SLURM is set, and where podman cannot start a container at all.
    """
    missing = [name for name in ("podman", "runc") if shutil.which(name) is None]
    reason = f"{' and '.join(missing)} not installed" if missing else ""
    if not reason and os.getuid() != 0:
        reason = "the image's folders are mounted by root only"
    if reason and os.environ.get("NEMOLAUNCH_REQUIRE_SLURM"):
        pytest.fail(f"no podman for the tests: {reason}")
    if reason:
        pytest.skip(f"no podman: {reason}")
    podman = Podman(tmp_path_factory.mktemp("podman"))
    podman.build()
    if why := podman.probe():
        pytest.skip(f"podman cannot start a container here: {why}")
    yield podman
    podman.says("rm", "--all", "--force", "--time", "0")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The sample corpus, tokenised."""
    folder = tmp_path_factory.mktemp("data")
    words = [
        "--hf-tokenizer",
        "examples/tokenizer",
        "--data-prefix",
        "en",
        "--input-dir",
        "examples/corpus/en.jsonl",
    ]
    command = [sys.executable, "-m", "nemolaunch", "tokenize", *words, "--output-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return str(folder)


@pytest.fixture
def command(podman: Podman, data: str, tmp_path: Path) -> Command:
    """Our command in a folder of its own."""
    return Command(podman, tmp_path, data)
