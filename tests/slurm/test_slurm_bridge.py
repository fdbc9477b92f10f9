"""Megatron-Bridge over two nodes: a killed rank and a signal, and the losses are those of NeMo 2's quiet run."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from bridge.conftest import PYTHON
from slurm.cluster import Cluster
from slurm.training import LAYOUT, Training, figures, finish

from nemolaunch.observe.slurm_run import condition

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not PYTHON.exists(), reason="there is no .venv-bridge; `make install-bridge` builds it"
    ),
]


def test_a_killed_rank_and_a_signal_change_nothing(
    client: Cluster, training_data: Path, tmp_path: Path
) -> None:
    flags: dict[str, Any] = {**LAYOUT, "precision": "fp32", "max_steps": 40, "checkpoint_every": 10}
    run = Training(client, tmp_path / "bridge", training_data, **flags, backend="bridge", python=PYTHON)
    process = run.start()
    try:
        run.wait_for_step(12)
        os.kill(run.rank_pids(1)[0], signal.SIGKILL)
        client.wait_until("second attempt", lambda: run.num_attempts() == 2, 300)
        run.wait_for_new_steps(2)
        client.run("scancel", "--signal=TERM", run.job())  # no KillWait, of five seconds here
        code, said = finish(process)
    finally:
        run.end()
    assert code == 0, said
    assert run.num_attempts() == 3
    assert "with a checkpoint: signal SIGTERM" in run.run.rank_log(0).read_text()
    assert condition(run.plan()).word == "finished"
    assert {path.name[:5] for path in run.run.checkpoints.glob("*0")} == {"iter_"}

    quiet = Training(client, tmp_path / "nemo2", training_data, **flags)
    code, said = finish(quiet.start())
    assert code == 0, said
    assert figures(run) == figures(quiet)
