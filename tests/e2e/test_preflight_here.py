"""`nemolaunch preflight` on this machine: the same measurements as in a job, over gloo."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from nemolaunch.cli.commands import preflight
from nemolaunch.run.folder import RunDir


def test_two_ranks_of_one_node(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    command = [sys.executable, "-m", "nemolaunch", "preflight", "-G", "2", "--device", "cpu", "--json"]
    done = subprocess.run(
        [*command, "--output-dir", str(run.root)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["unfit"] == []
    assert [row["rank"] for row in found["measured"]["ranks"]] == [0, 1]
    assert all(row["flops_per_s"] > 0 and row["errors"] == [] for row in found["measured"]["ranks"])
    (node,) = found["measured"]["nodes"]
    assert node["num_ranks"] == 2
    assert node["within_bytes_per_s"] > 0
    assert node["between_bytes_per_s"] == {}
    assert node["versions"]["torch"] == version("torch")
    assert node["system"]["kernel"] == platform.release()
    (files,) = node["files"]
    assert files["read_bytes_per_s"] > 0
    assert files["write_bytes_per_s"] > 0
    assert json.loads(run.preflight_result.read_text())["measured"] == found["measured"]
    left = {path.name for path in run.preflight.iterdir()}
    assert left == {"result.json", "unfit", "rank0.log", "rank1.log"}  # no file of the speed test, no meeting


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-N", "2"], "error[local-nodes]"),
        (["--preflight-tolerance", "2"], "error[out-of-range]"),
        (["--show-script"], "--show-script is for --executor slurm"),
    ],
)
def test_mistakes(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert preflight.main(words) == 1
    assert said in capsys.readouterr().err
