"""The public Python API, run as the example script that documents it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nemolaunch as nl

SCRIPT = Path(__file__).parents[2] / "examples" / "python_api.py"


def test_the_example_script(tmp_path: Path) -> None:
    """It has no `if __name__ == "__main__"`, as notebooks have none: its workers must not run it again."""
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "finished 4 of 4" in done.stdout
    assert done.stdout.count("<Plan ") == 1

    run = nl.Run(tmp_path / "run")
    assert run.status().state == "finished"
    losses = [row["loss"] for row in run.metrics() if "loss" in row]
    assert len(losses) == 4
    assert str([round(loss, 3) for loss in losses]) in done.stdout
    assert len(run.checkpoints) == 2
    assert (run.folder / "report.html").exists()
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["num_hidden_layers"] == 2
    assert float(done.stdout.splitlines()[-1]) > 1
