"""One Slurm cluster for all tests of this folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from slurm.cluster import Cluster, why_not
from slurm.training import BACKENDS, LAYOUT, ROOT, Training, backend_flags, finish


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two nodes with accounting. In a folder with a short name: a socket's path has at most 107 characters.

    Skips where no cluster can be started, unless NEMOLAUNCH_REQUIRE_SLURM is set.
    """
    reason = why_not()
    if reason and os.environ.get("NEMOLAUNCH_REQUIRE_SLURM"):
        pytest.fail(f"no Slurm cluster for the tests: {reason}")
    if reason:
        pytest.skip(f"no Slurm cluster: {reason}")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    running = Cluster(folder, spank=_container_plugin(folder))
    try:
        running.start()
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _container_plugin(folder: Path) -> str:
    """The plugstack line of the stand-in for pyxis; empty without a compiler or libslurm-dev."""
    source, plugin = Path(__file__).with_name("minipyxis.c"), folder / "minipyxis.so"
    command = ["cc", "-shared", "-fPIC", "-o", str(plugin), str(source)]
    if shutil.which("cc") is None or subprocess.run(command, capture_output=True).returncode:
        return ""
    return f"required {plugin}\n"


@pytest.fixture
def client(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The cluster, with this process as a client of it: `squeue` and our own commands find it."""
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    return cluster


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The flags that choose each backend. Whichever it is, the right values are NeMo 2's."""
    return backend_flags(request.param)


@pytest.fixture
def run(client: Cluster, training_data: Path, tmp_path: Path, backend: dict[str, Any]) -> Iterator[Training]:
    """A run over the two nodes, with each backend; nothing of it stays in the queue."""
    made = Training(client, tmp_path / "run", training_data, **LAYOUT, **backend)
    yield made
    made.end()


@pytest.fixture(scope="session")
def training_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokenised sample text."""
    folder = tmp_path_factory.mktemp("data")
    corpus, tokenizer = ROOT / "examples" / "corpus" / "en.jsonl", ROOT / "examples" / "tokenizer"
    command: list[str | Path] = [
        "tokenize",
        "--hf-tokenizer",
        tokenizer,
        "--data-prefix",
        "en",
        "--input-dir",
        corpus,
    ]
    subprocess.run(
        [sys.executable, "-m", "nemolaunch.cli.main", *command, "--output-dir", folder],
        check=True,
        timeout=300,
    )
    return folder


@pytest.fixture(scope="session")
def quiet(cluster: Cluster, training_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """A run that nothing happens to, with tensor parallelism across the two nodes."""
    run = Training(cluster, tmp_path_factory.mktemp("quiet") / "quiet", training_data, **LAYOUT)
    code, said = finish(run.start())
    assert code == 0, said
    return run


@pytest.fixture
def containers(cluster: Cluster) -> Cluster:
    """The cluster, if it has the stand-in for pyxis."""
    if not cluster.spank:
        if os.environ.get("NEMOLAUNCH_REQUIRE_SLURM"):
            pytest.fail("the container plugin did not compile: it needs a C compiler and libslurm-dev")
        pytest.skip("needs a C compiler and libslurm-dev")
    return cluster


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image: a folder with variables of its own."""
    folder = tmp_path / "image"
    (folder / "of-the-image").mkdir(parents=True)
    (folder / "environment").write_text("TOKENIZERS_PARALLELISM=image\nPYTHONPATH=/of-the-image\n")
    return folder
