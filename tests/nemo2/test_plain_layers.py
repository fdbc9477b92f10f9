"""The layers that stand in on a GPU without Transformer Engine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

JOB = Path(__file__).with_name("plain_layers_job.py")


def test_they_make_no_tensor_on_another_device_and_leave_cuda_alone() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", str(JOB)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "norm": "nemolaunch.cpu.norms",
        "plain": [32, 2, 64],
        "windowed": [32, 2, 64],
        "steps": 2,
        "cuda is its own": True,
    }
