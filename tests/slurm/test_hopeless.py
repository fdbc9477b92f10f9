"""Faults that a restart does not mend: the run ends by itself, with the cause, the place and what to change."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from slurm.cluster import Cluster
from slurm.training import LAYOUT, Training, finish

from nemolaunch.cli.commands import diagnose

pytestmark = pytest.mark.long


@pytest.fixture
def fresh_n2(client: Cluster) -> Iterator[Cluster]:
    """The second node may be spoilt; it is started anew afterwards."""
    yield client
    client.kill_node("n2")
    client.wait_until("dead node noticed", lambda: "n2" not in client.idle_nodes())
    client.start_node("n2")
    client.wait_until("idle nodes", lambda: len(client.idle_nodes()) == 2)


def ended(run: Training) -> str:
    """What the command says of a run that comes to no good end."""
    run.flags["max_failures"] = 1
    code, said = finish(run.start())
    assert code == 1, said
    return said


def test_a_full_disk(client: Cluster, training_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A real one: the third checkpoint does not fit."""
    folder = client.small / "run"
    try:
        said = ended(Training(client, folder, training_data, **LAYOUT, keep_latest=-1, max_steps=40))
        assert "MB left" in said
        assert "[disk-full]" in said
        assert "fewer checkpoints with --keep-latest" in said
        assert diagnose.main([str(folder)]) == 0
        assert "[disk-full]" in capsys.readouterr().out
    finally:
        for path in client.small.iterdir():
            shutil.rmtree(path)


def test_data_that_one_node_does_not_see(fresh_n2: Cluster, training_data: Path, tmp_path: Path) -> None:
    fresh_n2.inside("n2", f"mount -t tmpfs none {training_data}")
    said = ended(Training(fresh_n2, tmp_path / "run", training_data, **LAYOUT))
    assert "first   rank 1 on n2" in said
    assert "[data-missing]" in said
    assert "check that n2 mounts the same file system as the other nodes" in said


def test_a_package_that_one_node_lacks(fresh_n2: Cluster, training_data: Path, tmp_path: Path) -> None:
    spec = find_spec("einops")
    assert spec is not None
    assert spec.origin is not None
    fresh_n2.inside("n2", f"mount -t tmpfs none {Path(spec.origin).parent}")
    said = ended(Training(fresh_n2, tmp_path / "run", training_data, **LAYOUT))
    assert "first   rank 1 on n2" in said
    assert "[import]" in said
