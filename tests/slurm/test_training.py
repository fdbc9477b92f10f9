"""Real trainings over two nodes: whatever happens, the losses are those of a run that nothing happened to."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from slurm.training import Training, finish, same_as

from nemolaunch.observe.slurm_run import condition
from nemolaunch.run.attempts import attempts
from nemolaunch.system.atomic_files import write_text

pytestmark = pytest.mark.long


def test_a_quiet_run_reaches_its_last_step(quiet: Training) -> None:
    assert quiet.step() == 20
    assert quiet.num_attempts() == 1
    assert len(quiet.fed()) == 20
    assert all(len(batches) == 4 for batches in quiet.fed().values())  # of 2 samples each


def test_a_time_limit_half_way_changes_nothing(quiet: Training, run: Training) -> None:
    run.flags |= {"time": "3", "exit_margin": 60}
    process = run.start()
    run.wait_for_step(6)
    left_s = int(run.run.slurm_end.read_text().split()[0]) - time.time()
    run.order(0, f"sleep {max(0, left_s - 58)}")  # until a minute is left
    code, said = finish(process, 900)
    assert code == 0, said
    assert "exited cleanly" in said, said
    assert "exiting after step" in run.run.rank_log(0).read_text()
    assert run.num_attempts() > 1
    assert len({attempt.job for attempt in attempts(run.run)}) == 1  # the same job again
    same_as(quiet, run)


def test_no_checkpoint_is_started_that_the_time_limit_would_cut_off(run: Training) -> None:
    """Earlier starts have seen that one takes longer than a job has."""
    run.flags |= {"time": "10", "max_failures": 1}
    write_text(run.run.slurm_slowest_save, "9999\n")
    code, said = finish(run.start())
    assert code == 1
    assert "without a checkpoint: time limit in" in run.run.rank_log(0).read_text()
    assert not list(run.run.checkpoints.glob("*"))
    assert run.num_attempts() == 1
    assert "1 attempts in a row made no progress" in said
    assert "and a checkpoint takes 9999 s" in said
    assert "[no-time-to-save]" in said


def test_cancel_ends_a_run_for_good_until_it_is_resumed(run: Training) -> None:
    run.flags["max_steps"] = 500
    process = run.start()
    run.wait_for_step(2)
    cancel = [sys.executable, "-m", "nemolaunch.cli.main", "cancel", str(run.run.root)]
    subprocess.run(cancel, check=True, env=run.cluster.environment, timeout=120)
    code, said = finish(process)
    assert code == 1
    assert "cancelled" in said
    assert len(run.run.slurm_attempts.read_text().splitlines()) == 2
    assert condition(run.plan()).word == "stopped"
    words = ["resume", str(run.run.root), "--max-steps", str(run.step() + 6)]
    resumed = subprocess.run(
        [sys.executable, "-m", "nemolaunch.cli.main", *words],
        env={**run.cluster.environment, **run.environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert [row["step"] for row in run.rows()] == list(range(1, run.step() + 1))
    assert condition(run.plan()).word == "finished"
