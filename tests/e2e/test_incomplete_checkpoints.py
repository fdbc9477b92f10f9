"""A checkpoint that a crash left incomplete is detected from its own index, and moved out of the way."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.distributed import checkpoint as dcp

from nemolaunch.checkpoint.megatron.completeness import incomplete
from nemolaunch.ranks.slurm_rank import set_incomplete_aside
from nemolaunch.run.folder import RunDir


def save(folder: Path, step: int) -> Path:
    """Save a checkpoint as NeMo does: torch's distributed format with two more files."""
    path = folder / f"llama--step={step}-consumed_samples={8 * step}.0"
    (path / "context").mkdir(parents=True)
    state = {"weight": torch.arange(4096.0), "bias": torch.ones(17)}
    dcp.save(state, storage_writer=dcp.FileSystemWriter(path / "weights"), no_dist=True)
    (path / "weights" / "metadata.json").write_text('{"sharded_backend": "torch_dist"}')
    torch.save({"step": step}, path / "weights" / "common.pt")
    return path


def cut(path: Path, name: str, keep: float) -> None:
    (file,) = (path / "weights").glob(name)
    with open(file, "rb+") as opened:
        opened.truncate(int(file.stat().st_size * keep))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "the marker of a save that did not end": (
        lambda path: path.with_name(path.name + "-unfinished").touch(),
        "its save did not end",
    ),
    "weights truncated": (lambda path: cut(path, "*.distcp", 0.5), ".distcp is truncated: it has "),
    "weights missing": (
        lambda path: next((path / "weights").glob("*.distcp")).unlink(),
        "1 of its 1 files are missing (__0_0.distcp)",
    ),
    "index truncated": (lambda path: cut(path, ".metadata", 0.5), ".metadata is damaged"),
    "index empty": (lambda path: cut(path, ".metadata", 0), "no .metadata"),
    "training state truncated": (lambda path: cut(path, "common.pt", 0.7), "common.pt is truncated"),
    "format missing": (lambda path: (path / "weights" / "metadata.json").unlink(), "no metadata.json"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_incomplete_checkpoint_is_set_aside_and_the_one_before_used(tmp_path: Path, damage: str) -> None:
    run = RunDir(tmp_path)
    before, newest = save(run.checkpoints, 4), save(run.checkpoints, 8)
    link = newest.with_name(newest.name + "-last")
    link.symlink_to(newest.name)
    harm, fault = DAMAGES[damage]
    assert incomplete(newest) is None
    harm(newest)
    assert fault in str(incomplete(newest))
    assert set_incomplete_aside(run) == [newest]
    assert run.last_checkpoint() == before
    assert sorted(path.name for path in run.checkpoints.iterdir()) == [before.name]
    (kept,) = run.incomplete.iterdir()
    assert kept.name.startswith(newest.name)


def test_a_run_whose_checkpoints_are_all_incomplete_starts_from_the_beginning(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for step in (4, 8):
        cut(save(run.checkpoints, step), "*.distcp", 0.9)
    assert len(set_incomplete_aside(run)) == 2
    assert run.last_checkpoint() is None


def test_complete_checkpoints_stay(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    newest = save(run.checkpoints, 8)
    assert set_incomplete_aside(run) == []
    shutil.rmtree(newest)
    assert set_incomplete_aside(run) == []
