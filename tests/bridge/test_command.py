"""The command trains with Megatron-Bridge in the other environment, and its run is read like any other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bridge.conftest import PYTHON
from e2e.jobs import TOKENIZER, llama

from nemolaunch.run.folder import RunDir


@pytest.mark.skipif(not PYTHON.exists(), reason="there is no .venv-bridge; `make install-bridge` builds it")
def test_the_command_trains_and_resumes(data: str, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "my run")
    words = [
        "--backend",
        "bridge",
        "--python",
        str(PYTHON),
        "-M",
        llama(tmp_path),
        "--hf-model-id",
        TOKENIZER,
    ]
    words += [
        "--dataset-dir",
        data,
        "--output-dir",
        str(run.root),
        "--split",
        "90,9,1",
        "--limit-val-batches",
        "1",
    ]
    words += ["-gbs", "8", "--checkpoint-every", "2"]
    for steps in (3, 5):
        command = [sys.executable, "-m", "nemolaunch", "pretrain", *words, "--max-steps", str(steps)]
        subprocess.run(command, check=True, timeout=600)
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5]
    assert [row["restarts"] for row in rows if row.get("event") == "start"] == [0, 1]
    assert [row["step"] for row in rows if "val_loss" in row] == [3, 5]
    assert json.loads(run.finished.read_text())["step"] == 5
    last = run.last_checkpoint()
    assert last is not None
    assert last.name == "iter_0000005"
