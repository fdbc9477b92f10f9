"""Megatron-Bridge over two nodes: a killed rank and a signal, and the losses are those of NeMo 2's quiet run."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from slurm.cluster import Cluster
from slurm.training import LAYOUT, Training, backend_flags, finish, same_as

from nemolaunch.observe.slurm_run import condition

pytestmark = pytest.mark.long


def test_a_killed_rank_and_a_signal_change_nothing(
    quiet: Training, client: Cluster, training_data: Path, tmp_path: Path
) -> None:
    run = Training(client, tmp_path / "bridge", training_data, **LAYOUT, **backend_flags("bridge"))
    process = run.start()
    try:
        run.wait_for_step(6)
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
    same_as(quiet, run)
