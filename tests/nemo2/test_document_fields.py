"""What a sample says of its documents is what Megatron's own masks and positions say."""

from __future__ import annotations

from pathlib import Path

from check_jobs import write_data
from forkserver import ForkServer


def test_fields_are_megatrons(fork_server: ForkServer) -> None:
    assert fork_server.run("nemo2.document_jobs:fields") == [[]]


def test_training_processes_look_for_the_ends(fork_server: ForkServer, tmp_path: Path) -> None:
    prefix = write_data(tmp_path, end=5)
    assert fork_server.run("nemo2.document_jobs:ends", {"prefix": prefix, "end": 5}) == [None]
    (problem,) = fork_server.run("nemo2.document_jobs:ends", {"prefix": prefix, "end": 7})
    assert problem is not None
    assert "eos_token 7" in problem
    assert "with 5" in problem
