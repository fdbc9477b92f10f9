"""The tutorials that train in containers, in podman."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from containers.podman import IMAGE, NEW, OLD, ROOT, Podman, needs_bridge
from tutorials import typed

from nemolaunch.observe.status import status
from nemolaunch.planning import Plan
from nemolaunch.run import metrics
from nemolaunch.run.folder import RunDir

pytestmark = pytest.mark.long


def test_a_gpu_box(podman: Podman, tmp_path: Path) -> None:
    known = podman.environment
    variables = {**known, "ENGINE": "podman", "IMAGE": IMAGE, "CLONE": str(ROOT), "OPTIONS": "--ulimit host"}
    said = typed("gpu-box.md", tmp_path, **variables)
    assert "podman run --rm --interactive --pull never --name nemolaunch-pretraining-" in said
    box, by_hand = status(tmp_path / "runs" / "box"), status(tmp_path / "runs" / "by-hand")
    assert (box.state, box.step, box.checkpoint_step) == ("finished", 12, 12)
    assert (by_hand.state, by_hand.step) == ("finished", 8)
    assert (tmp_path / "runs" / "by-hand" / "plan.json").stat().st_uid == os.getuid()


@needs_bridge
def test_a_run_moved_to_bridge(podman: Podman, tmp_path: Path) -> None:
    """What an image with NeMo 2 alone has begun goes on in one with Megatron-Bridge alone."""
    typed("move-to-bridge.md", tmp_path, **podman.environment, EXECUTOR="podman")
    old, new = (RunDir(tmp_path / "runs" / name) for name in ("old", "new"))
    images = [Plan.of_run(run).job.launch.container_image for run in (old, new)]
    assert images == [OLD, NEW]
    assert [status(run.root).state for run in (old, new)] == ["finished", "finished"]
    rows = [row for row in metrics.current(metrics.read(new.metrics)) if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, 25))
    assert max(row["loss"] for row in rows[12:]) < rows[0]["loss"] - 1  # no step begins anew
    assert "moved from NeMo 2" in (new.root / "report.html").read_text(encoding="utf-8")
