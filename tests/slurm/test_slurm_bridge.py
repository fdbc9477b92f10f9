"""Megatron-Bridge over two nodes: a killed rank and a requeued job, and the losses are those of NeMo 2's quiet run."""

from __future__ import annotations

import os
import signal
from pathlib import Path

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


def test_a_killed_rank_and_a_requeue_change_nothing(
    quiet: Training, client: Cluster, training_data: Path, tmp_path: Path
) -> None:
    run = Training(client, tmp_path / "bridge", training_data, **LAYOUT, backend="bridge", python=PYTHON)
    process = run.start()
    try:
        run.wait_for_step(6)
        os.kill(run.rank_pids(1)[0], signal.SIGKILL)
        client.wait_until("second attempt", lambda: run.num_attempts() == 2, 300)
        run.wait_for_new_steps(4)
        client.run("scontrol", "requeue", run.job())
        code, said = finish(process)
    finally:
        run.end()
    assert code == 0, said
    assert run.num_attempts() == 3
    assert figures(run) == figures(quiet)
    assert "exiting after step" in run.run.rank_log(0).read_text()
    assert condition(run.plan()).word == "finished"
    assert run.plan().with_bridge
