"""The batch script keeps a run going over jobs, and knows when to stop. Real Slurm, a light worker."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from slurm.cluster import Cluster
from slurm.light import LightRun
from slurm.training import BACKENDS

from nemolaunch.observe.slurm_run import condition
from nemolaunch.slurm import submission

with_both = pytest.mark.parametrize("backend", BACKENDS)


@with_both
def test_a_job_that_leaves_in_order_is_the_same_job_again_until_the_run_is_finished(
    cluster: Cluster, tmp_path: Path, backend: str
) -> None:
    """So that `--dependency=afterok:JOB` means the run, however often it was started."""
    run = LightRun(cluster, tmp_path / "run", ["leave", "leave", "finish"], backend=backend)
    job = run.submit()
    touched = tmp_path / "after"
    after = cluster.run(
        *("sbatch", "--parsable", f"--dependency=afterok:{job}", f"--output={tmp_path}/after.out"),
        *("--wrap", f"test -e {run.run.finished} && touch {touched}"),
    )
    run.wait_until_over()
    cluster.wait_until("dependent job", lambda: cluster.state(after) in ("COMPLETED", "FAILED", "CANCELLED"))
    assert run.attempts() == [job] * 3
    assert cluster.state(job) == "COMPLETED"
    assert touched.exists()
    assert not run.run.slurm_next.exists()
    assert not run.run.lock.exists()


def test_a_job_that_is_killed_is_followed_by_the_next(cluster: Cluster, tmp_path: Path) -> None:
    run = LightRun(cluster, tmp_path / "run", ["run", "finish"])
    job = run.submit()
    run.wait_until_running(job)
    cluster.kill_script(job)
    run.wait_until_over()
    assert len(set(run.attempts())) == 2
    assert cluster.state(job) == "FAILED"
    assert cluster.state(run.attempts()[1]) == "COMPLETED"
    assert run.run.finished.exists()


@with_both
def test_crashes_without_progress_end_the_chain_and_say_so(
    client: Cluster, tmp_path: Path, backend: str
) -> None:
    run = LightRun(client, tmp_path / "run", ["progress and crash", "crash"], max_failures=2, backend=backend)
    job = run.submit()
    run.wait_until_over()
    assert run.attempts() == [job] * 3  # one made a checkpoint, two more did not
    now = condition(run.plan)
    assert now.word == "stopped"
    assert "2 attempts in a row made no progress beyond checkpoint 0" in now.detail
    assert client.state(job) == "FAILED"


@pytest.mark.long
def test_crashes_with_progress_go_on(cluster: Cluster, tmp_path: Path) -> None:
    run = LightRun(cluster, tmp_path / "run", ["progress and crash"] * 2 + ["finish"], max_failures=1)
    run.submit()
    run.wait_until_over()
    assert len(run.attempts()) == 3
    assert run.run.finished.exists()


def test_a_cancelled_job_ends_the_run_at_once(client: Cluster, tmp_path: Path) -> None:
    run = LightRun(client, tmp_path / "run", ["run"])
    job = run.submit()
    run.wait_until_running(job)
    following = run.run.slurm_next.read_text().strip()
    client.run("scancel", job)
    run.wait_until_over()
    assert run.attempts() == [job]
    assert "nemolaunch" not in (run.output_of(following) or "")  # it never started
    assert condition(run.plan).detail == f"job {job} was cancelled"


def test_a_job_that_is_cancelled_while_it_waits_to_start_again_ends_the_run(
    client: Cluster, tmp_path: Path
) -> None:
    run = LightRun(client, tmp_path / "run", ["leave", "finish"])
    job = run.submit()
    client.wait_until("requeue", lambda: len(run.attempts()) == 1 and client.state(job) == "PENDING")
    client.run("scancel", job)
    run.wait_until_over()
    assert not run.run.finished.exists()
    assert condition(run.plan).detail == f"job {job} was cancelled"


def test_without_a_chain_a_run_that_left_in_order_has_not_succeeded(client: Cluster, tmp_path: Path) -> None:
    run = LightRun(client, tmp_path / "run", ["leave"], chain=False)
    job = run.submit()
    run.wait_until_over()
    assert run.attempts() == [job]
    assert client.state(job) == "FAILED"
    assert "ExitCode=75:0" in client.run("scontrol", "show", "job", job)
    assert condition(run.plan).detail == f"job {job} exited at checkpoint 0; continue with nemolaunch resume"


@with_both
def test_a_preempted_job_saves_and_goes_on(cluster: Cluster, tmp_path: Path, backend: str) -> None:
    run = LightRun(cluster, tmp_path / "run", ["run", "finish"], backend=backend)
    job = run.submit()
    run.wait_until_running(job)
    end = int(run.run.slurm_end.read_text().split()[0])
    urgent = cluster.run(
        *("sbatch", "--parsable", "-p", "urgent", "-N2", "--exclusive", "--output=/dev/null"),
        *("--wrap", "sleep 1"),
    )
    run.wait_until_over()
    assert cluster.state(urgent) == "COMPLETED"
    assert len(run.attempts()) == 2
    assert run.run.finished.exists()
    told = [int(line.split()[-2]) for line in run.output().splitlines() if line.startswith("worker: end")]
    assert told
    assert told[0] < end  # the ranks were told that the end had come nearer


def test_a_dead_node_does_not_end_the_run(cluster: Cluster, tmp_path: Path) -> None:
    run = LightRun(cluster, tmp_path / "run", ["run", "finish"])
    job = run.submit()
    run.wait_until_running(job)
    cluster.kill_node("n2")
    cluster.wait_until("dead node noticed", lambda: cluster.state(job) != "RUNNING")
    cluster.start_node("n2")
    run.wait_until_over()
    assert run.attempts()[0] == job
    assert (
        len(run.attempts()) == 2
    )  # by the same job where Slurm sees the node's death first, else by the next
    assert run.run.finished.exists()


@pytest.mark.long
def test_a_node_that_dies_while_the_job_is_requeued_does_not_end_the_run(
    cluster: Cluster, tmp_path: Path
) -> None:
    run = LightRun(cluster, tmp_path / "run", ["leave", "finish"])
    job = run.submit()
    cluster.wait_until("requeue", lambda: len(run.attempts()) == 1 and cluster.state(job) == "PENDING")
    cluster.kill_node("n1")
    cluster.wait_until("dead node noticed", lambda: "n1" not in cluster.idle_nodes())
    cluster.start_node("n1")
    run.wait_until_over()
    assert run.run.finished.exists()


def test_jobs_of_one_folder_take_turns(cluster: Cluster, tmp_path: Path) -> None:
    run = LightRun(cluster, tmp_path / "run", ["leave", "finish"])
    jobs = [run.submit(), run.submit(), run.submit()]
    run.wait_until_over()
    assert run.attempts() == [jobs[0], jobs[0]]  # the others find the run finished
    assert [cluster.state(job) for job in jobs] == ["COMPLETED"] * 3


def test_a_job_under_another_name_leaves_a_folder_that_is_in_use_alone(
    cluster: Cluster, tmp_path: Path
) -> None:
    """As when a folder is reached by two paths, or by two people: `singleton` then holds nothing back."""
    run = LightRun(cluster, tmp_path / "run", ["run"], sbatch=["exclusive=none", "mem=100", "overcommit"])
    job = run.submit()
    run.wait_until_running(job)
    other = cluster.run(
        *("sbatch", "--parsable", "--job-name=other", "--dependency=", "--nodes=1", str(run.script))
    )
    cluster.wait_until("end of the other", lambda: cluster.state(other) == "FAILED")
    assert f"job {job} is running in {run.run.root}" in run.output()
    assert run.attempts() == [job]
    assert cluster.state(job) == "RUNNING"
    cluster.run("scancel", job)
    run.wait_until_over()


def test_a_folder_that_another_machine_trains_in_is_left_alone(cluster: Cluster, tmp_path: Path) -> None:
    run = LightRun(cluster, tmp_path / "run", ["finish"])
    run.hurry(lock_stale_s=2)
    run.run.lock.write_text("local elsewhere 4711\n")
    job = run.submit()

    def over() -> bool:
        os.utime(run.run.lock)
        return cluster.state(job) == "FAILED"

    cluster.wait_until("refusal", over)
    assert "another job is writing to" in run.output()
    assert not run.attempts()
    run.submit()  # nobody touches the lock any more
    run.wait_until_over()
    assert run.run.finished.exists()


def test_an_array_is_a_chain(cluster: Cluster, tmp_path: Path) -> None:
    run = LightRun(cluster, tmp_path / "run", ["leave", "leave", "finish"], array="1-4%1")
    run.submit()
    run.wait_until_over()
    assert len(run.attempts()) == 3
    assert run.run.finished.exists()


def test_an_array_that_waits_is_cancelled_whole(client: Cluster, tmp_path: Path) -> None:
    """`10_[1-4%1]`, as squeue lists it, is no id that scancel takes."""
    run = LightRun(client, tmp_path / "run", ["finish"], array="1-4%1", sbatch=["hold"])
    job = run.submit()
    assert submission.cancel(run.plan) == [job]
    run.wait_until_over()
    assert not run.attempts()


@pytest.mark.long
def test_a_restarted_controller_changes_nothing(cluster: Cluster, tmp_path: Path) -> None:
    run = LightRun(cluster, tmp_path / "run", ["run", "finish"])
    job = run.submit()
    run.wait_until_running(job)
    cluster.stop_controller()
    cluster.start_controller()
    cluster.wait_until("answers", lambda: cluster.state(job) == "RUNNING")
    cluster.run("scancel", "--signal=TERM", job)
    run.wait_until_over()
    assert len(run.attempts()) == 2
    assert run.run.finished.exists()
