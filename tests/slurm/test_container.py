"""Jobs in containers, on a stand-in for pyxis with its options and its rule about the image's variables.

minipyxis.c says what it does not model.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from slurm.cluster import Cluster
from slurm.light import LightRun

from nemolaunch.observe.diagnosis import diagnose

# What the worker needs besides what the job mounts by itself
SYSTEM = ("/usr", "/lib", "/lib64", "/bin", sys.prefix, sys.base_prefix, str(Path(__file__).parent))


def run_in(cluster: Cluster, folder: Path, image: Path, behaviour: list[str]) -> LightRun:
    mounts = [f"{path}:{path}" for path in SYSTEM]
    return LightRun(
        cluster,
        folder,
        behaviour,
        container_image=str(image),
        container_mounts=mounts,
        sbatch=[],
        chain=False,
    )


def test_ranks_see_the_image_their_mounts_and_our_variables(
    containers: Cluster, image: Path, tmp_path: Path
) -> None:
    run = run_in(containers, tmp_path / "run", image, ["look and finish"])
    run.submit()
    run.wait_until_over()
    seen = json.loads((run.run.root / "seen.json").read_text())
    assert "of-the-image" in seen["root"]
    assert "home" not in seen["root"]
    assert seen["folder"] == "/nemo_run/code"
    assert (
        seen["environment"]["TOKENIZERS_PARALLELISM"] == "false"
    )  # named to pyxis, so the plan's value wins
    assert seen["environment"]["PYTHONPATH"] == "/of-the-image"  # the image's own stays
    assert run.run.finished.exists()


def test_paths_with_blanks_are_mounted(containers: Cluster, image: Path, tmp_path: Path) -> None:
    mine = tmp_path / "my data; $(id)"
    mine.mkdir()
    spaced = image.rename(tmp_path / "my image")
    mounts = [f"{path}:{path}" for path in SYSTEM]
    flags: dict[str, Any] = {
        "container_image": str(spaced),
        "container_mounts": [*mounts, f"{mine}:/my data"],
    }
    run = LightRun(containers, tmp_path / "run", ["look and finish"], sbatch=[], chain=False, **flags)
    run.submit()
    run.wait_until_over()
    assert "my data" in json.loads((run.run.root / "seen.json").read_text())["root"]


def test_a_missing_image_is_named_as_the_cause(containers: Cluster, tmp_path: Path) -> None:
    run = run_in(containers, tmp_path / "run", tmp_path / "nowhere.sqsh", ["finish"])
    run.submit()
    run.wait_until_over()
    found = diagnose(run.run)
    assert found.cause is not None
    assert found.cause.code == "container"
