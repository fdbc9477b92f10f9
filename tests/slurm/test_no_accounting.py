"""A cluster as Slurm is without further settings: no slurmdbd, and jobs that can never start stay in the queue."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm.cluster import Cluster
from slurm.light import LightRun

from nemolaunch.cli.commands import cancel, status
from nemolaunch.observe.slurm_run import condition


@pytest.fixture(scope="module")
def plain(cluster: Cluster) -> Iterator[Cluster]:
    """Where the other one could be started, this one can."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    running = Cluster(folder, accounting=False, drops_hopeless_jobs=False)
    try:
        running.start()
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def bare(plain: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setenv("SLURM_CONF", plain.environment["SLURM_CONF"])
    return plain


def test_a_run_goes_on_to_its_end(bare: Cluster, tmp_path: Path) -> None:
    run = LightRun(bare, tmp_path / "run", ["leave", "finish"])
    job = run.submit()
    run.wait_until_over()
    assert run.attempts() == [job] * 2
    assert condition(run.plan).word == "finished"


def test_a_cancelled_job_ends_the_run_at_once(bare: Cluster, tmp_path: Path) -> None:
    run = LightRun(bare, tmp_path / "run", ["run"])
    job = run.submit()
    run.wait_until_running(job)
    assert condition(run.plan).word == "running"
    bare.run("scancel", job)
    run.wait_until_over()
    assert run.attempts() == [job]
    assert condition(run.plan).detail == f"job {job} was cancelled"


def test_a_job_that_will_never_start_is_not_said_to_wait(
    bare: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = bare.run("sbatch", "--parsable", "--output=/dev/null", "--wrap", "exit 1")
    run = LightRun(bare, tmp_path / "run", ["finish"], dependency=f"afterok:{failed}")
    run.submit()
    bare.wait_until("hopelessness", lambda: condition(run.plan).word == "blocked")
    assert status.main([str(run.run.root)]) == 1
    said = capsys.readouterr().out
    assert "blocked: DependencyNeverSatisfied: the job it depends on failed; remove it from the queue" in said
    assert cancel.main([str(run.run.root)]) == 0
    assert not run.queued()
