"""The command trains with Megatron-Bridge in the other environment, and its run is read like any other."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest
from bridge.conftest import PYTHON
from e2e.command import finished, processes_about, started, wait_for
from e2e.jobs import TOKENIZER, llama

from nemolaunch.observe.status import status
from nemolaunch.run.folder import RunDir


@pytest.mark.skipif(not PYTHON.exists(), reason="there is no .venv-bridge; `make install-bridge` builds it")
def test_the_command_trains_saves_on_ctrl_c_and_resumes(data: str, tmp_path: Path) -> None:
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
    words += ["-gbs", "8", "--precision", "fp32"]
    command = [sys.executable, "-m", "nemolaunch", "pretrain", *words]

    def losses() -> list[int]:
        lines = run.metrics.read_text().splitlines() if run.metrics.exists() else []
        return [row["step"] for row in map(json.loads, lines) if "loss" in row]

    process = started([*command, "--max-steps", "10000"], tmp_path)
    wait_for(lambda: len(losses()) > 1, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(300) == 130
    assert processes_about(run.root) == {}
    stopped = status(run.root)
    assert (stopped.state, stopped.detail) == ("stopped", "interrupted")
    assert stopped.checkpoint_step == stopped.step > 1  # nothing is lost
    assert f"resumes from my run/checkpoints/iter_{stopped.step:07}" in (tmp_path / "out").read_text()

    steps = stopped.step + 2
    done = finished([*command, "--max-steps", str(steps)], tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert losses() == list(range(1, steps + 1))
    assert [row["restarts"] for row in rows if row.get("event") == "start"] == [0, 1]
    assert [row["step"] for row in rows if "val_loss" in row][-1] == steps
    assert json.loads(run.finished.read_text())["step"] == steps
    last = run.last_checkpoint()
    assert last is not None
    assert last.name == f"iter_{steps:07}"
