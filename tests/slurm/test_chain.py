"""The batch script keeps a run going over jobs, and knows when to stop. Real Slurm, a light worker."""

from __future__ import annotations

from pathlib import Path

from slurm.cluster import Cluster
from slurm.light import LightRun


def test_a_run_goes_on_in_the_next_job_until_it_is_finished(cluster: Cluster, tmp_path: Path) -> None:
    run = LightRun(cluster, tmp_path / "run", ["leave", "leave", "finish"])
    first = run.submit()
    run.wait_until_over()
    assert len(set(run.starts())) == 3
    assert run.starts()[0] == first
    assert not run.run.slurm_next.exists()
    assert all(cluster.state(job) == "COMPLETED" for job in run.starts())


def test_crashes_without_progress_end_the_chain_and_say_so(cluster: Cluster, tmp_path: Path) -> None:
    run = LightRun(cluster, tmp_path / "run", ["progress and crash", "crash"], give_up_after=2)
    run.submit()
    run.wait_until_over()
    assert len(run.starts()) == 3  # one made a checkpoint, two more did not
    assert "2 starts in a row made no progress beyond checkpoint 0" in run.run.slurm_stopped.read_text()
    assert not run.queued()


def test_crashes_with_progress_go_on(cluster: Cluster, tmp_path: Path) -> None:
    run = LightRun(cluster, tmp_path / "run", ["progress and crash"] * 4 + ["finish"], give_up_after=2)
    run.submit()
    run.wait_until_over()
    assert len(run.starts()) == 5
    assert run.run.finished.exists()


def test_a_cancelled_job_is_not_followed_by_another(cluster: Cluster, tmp_path: Path) -> None:
    run = LightRun(cluster, tmp_path / "run", ["run"])
    job = run.submit()
    cluster.wait_until("running job", lambda: run.run.slurm_next.exists() and cluster.state(job) == "RUNNING")
    cluster.run("scancel", job)
    run.wait_until_over()
    assert run.starts() == [job]
    assert run.run.slurm_stopped.read_text() == f"job {job} was cancelled\n"


def test_a_preempted_job_saves_and_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    run = LightRun(cluster, tmp_path / "run", ["run", "finish"])
    job = run.submit()
    cluster.wait_until("running job", lambda: run.run.slurm_next.exists() and cluster.state(job) == "RUNNING")
    urgent = cluster.run("sbatch", "--parsable", "-p", "urgent", "-N2", "--exclusive", "--wrap", "sleep 1")
    run.wait_until_over()
    assert cluster.state(urgent) == "COMPLETED"
    assert len(run.starts()) == 2
    assert run.run.finished.exists()


def test_a_dead_node_does_not_end_the_run(cluster: Cluster, tmp_path: Path) -> None:
    run = LightRun(cluster, tmp_path / "run", ["run", "finish"])
    job = run.submit()
    cluster.wait_until("running job", lambda: run.run.slurm_next.exists() and cluster.state(job) == "RUNNING")
    cluster.kill_node("n2")
    cluster.wait_until("dead node noticed", lambda: cluster.state(job) != "RUNNING")
    cluster.start_node("n2")
    run.wait_until_over()
    assert run.starts()[0] == job
    assert len(run.starts()) == 2  # by the same job where Slurm sees the node's death first, else by the next
    assert run.run.finished.exists()


def test_jobs_of_one_folder_take_turns(cluster: Cluster, tmp_path: Path) -> None:
    run = LightRun(cluster, tmp_path / "run", ["leave", "finish"], chain=False)
    jobs = [run.submit(), run.submit(), run.submit()]
    run.wait_until_over()
    assert run.starts() == jobs[:2]  # the third finds the run finished


def test_an_array_is_a_chain(cluster: Cluster, tmp_path: Path) -> None:
    run = LightRun(cluster, tmp_path / "run", ["leave", "leave", "finish"], array="1-5%1")
    run.submit()
    run.wait_until_over()
    assert len(run.starts()) == 3
    assert run.run.finished.exists()


def test_a_restarted_controller_changes_nothing(cluster: Cluster, tmp_path: Path) -> None:
    run = LightRun(cluster, tmp_path / "run", ["run", "finish"])
    job = run.submit()
    cluster.wait_until("running job", lambda: run.run.slurm_next.exists() and cluster.state(job) == "RUNNING")
    cluster.stop_controller()
    cluster.start_controller()
    cluster.wait_until("answers", lambda: cluster.state(job) == "RUNNING")
    cluster.run("scancel", "--signal=TERM", job)
    run.wait_until_over()
    assert len(run.starts()) == 2
    assert run.run.finished.exists()
