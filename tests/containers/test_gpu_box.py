"""The tutorial about a machine without Slurm, in podman."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from containers.podman import IMAGE, ROOT, Podman
from tutorials import typed

from nemolaunch.observe.status import status

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
