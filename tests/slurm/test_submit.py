"""Two submissions of one run folder: one is taken, and nothing of its run is touched by the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slurm.cluster import Cluster
from slurm.light import LightRun
from slurm.training import Training, finish

from nemolaunch.observe.slurm_run import condition
from nemolaunch.slurm import batch_job, submission


def test_of_two_submissions_at_once_one_is_taken(
    client: Cluster, training_data: Path, tmp_path: Path, backend: dict[str, Any]
) -> None:
    flags = {**backend, "sbatch": "hold", "detach": True}
    runs = [Training(client, tmp_path / "run", training_data, **flags, max_steps=steps) for steps in (20, 30)]
    ends = [finish(process) for process in [run.start() for run in runs]]
    assert sorted(code for code, _ in ends) == [0, 1], ends
    (winner,) = (run for run, (code, _) in zip(runs, ends, strict=True) if code == 0)
    (refusal,) = (said for code, said in ends if code == 1)
    assert "is writing to" in refusal or "is already in the queue" in refusal
    queued = client.run("squeue", "-h", "-n", batch_job.job_name(winner.plan()), "-o", "%i").split()
    assert len(queued) == 1
    assert winner.plan().max_steps == winner.flags["max_steps"]
    assert condition(winner.plan()).word == "waiting"
    client.run("scancel", *queued)


def test_variables_of_the_shell_do_not_change_the_job(client: Cluster, tmp_path: Path) -> None:
    """With them in place, Slurm itself would take partition, time and name from SBATCH_*."""
    outer = {"SBATCH_PARTITION": "short", "SBATCH_TIMELIMIT": "3", "SLURM_CPUS_PER_TASK": "3"}
    run = LightRun(client, tmp_path / "run", ["finish"], sbatch=["hold"])
    shell = submission.shell_here({**client.environment, **outer})
    job = submission.sbatch(["--requeue", str(run.script)], shell)
    shown = client.run("scontrol", "-o", "show", "job", job)
    client.run("scancel", job)
    assert " Partition=main " in shown
    assert " TimeLimit=00:10:00 " in shown
    changed = client.run(
        "env", *(f"{name}={value}" for name, value in outer.items()), "sbatch", "--parsable", str(run.script)
    )
    shown = client.run("scontrol", "-o", "show", "job", changed)
    client.run("scancel", changed)
    assert " Partition=short " in shown


def test_a_submission_beside_a_running_one_leaves_its_checkpoints_and_plan(
    client: Cluster, training_data: Path, tmp_path: Path
) -> None:
    first = LightRun(client, tmp_path / "run", ["finish"], sbatch=["hold"])
    job = first.submit()
    before = first.run.plan.read_bytes()
    (first.run.checkpoints / "demo--step=3-consumed_samples=32.0").mkdir(parents=True)
    second = Training(client, tmp_path / "run", training_data, experiment="llama", resume="never")
    code, said = finish(second.start("--force", "run-of-other-model"))
    client.run("scancel", job)
    assert code == 1
    assert f"job {job} of this run is already in the queue (pending)" in said
    assert first.run.plan.read_bytes() == before
    assert len(list(first.run.checkpoints.iterdir())) == 1


def test_a_finished_run_can_go_on_although_its_job_is_still_leaving_the_queue(
    client: Cluster, tmp_path: Path
) -> None:
    run = LightRun(client, tmp_path / "run", ["finish and linger"])
    job = run.submit()
    client.wait_until("end", run.run.finished.exists)
    assert job in run.queued()
    said: list[str] = []
    with submission.claimed(run.plan, said.append):
        assert not run.queued()
    assert said == [f"waiting for job {job} of this run to leave the queue"]
