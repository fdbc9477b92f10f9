"""Two submissions of one run folder: one is taken, and nothing of its run is touched by the other."""

from __future__ import annotations

import json
from pathlib import Path

from slurm.cluster import Cluster
from slurm.training import Training, finish

from nemolaunch import batchjob
from nemolaunch.slurm_run import condition


def test_of_two_submissions_at_once_one_is_taken(
    client: Cluster, training_data: Path, tmp_path: Path
) -> None:
    runs = [
        Training(client, tmp_path / "run", training_data, sbatch="hold", detach=True, max_steps=steps)
        for steps in (20, 30)
    ]
    ends = [finish(process) for process in [run.start() for run in runs]]
    assert sorted(code for code, _ in ends) == [0, 1], ends
    (winner,) = (run for run, (code, _) in zip(runs, ends, strict=True) if code == 0)
    (refusal,) = (said for code, said in ends if code == 1)
    assert "is being written by" in refusal or "is in the queue already" in refusal
    queued = client.run("squeue", "-h", "-n", batchjob.job_name(winner.plan()), "-o", "%i").split()
    assert len(queued) == 1
    assert winner.plan().values["max_steps"] == winner.flags["max_steps"]
    assert condition(winner.plan()).word == "waiting"
    client.run("scancel", *queued)


def test_a_submission_beside_a_running_one_leaves_its_checkpoints_and_plan(
    client: Cluster, training_data: Path, tmp_path: Path
) -> None:
    run = Training(client, tmp_path / "run", training_data, sbatch="hold", detach=True)
    assert finish(run.start())[0] == 0
    (run.run.checkpoints / "demo--step=3-consumed_samples=32.0").mkdir(parents=True)
    before = run.run.plan.read_bytes()
    code, said = finish(run.start("--resume", "never", "--max-steps", "50", "--force", "checkpoint-unusable"))
    assert code == 1
    assert "is in the queue already (pending)" in said
    assert run.run.plan.read_bytes() == before
    assert json.loads(before)["values"]["max_steps"] == 20
    assert len(list(run.run.checkpoints.iterdir())) == 1
    run.end()
