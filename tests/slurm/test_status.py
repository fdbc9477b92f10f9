"""`nemolaunch status` and its exit code tell the truth, over the whole life of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from slurm.cluster import Cluster
from slurm.light import LightRun
from slurm.training import BACKENDS

from nemolaunch.cli.commands import status
from nemolaunch.observe.slurm_run import QueueFollower


class Told:
    """What `nemolaunch status RUN --json` says of a run, and its exit code."""

    def __init__(self, run: LightRun, capsys: pytest.CaptureFixture[str]) -> None:
        self.run, self.capsys = run, capsys

    def __call__(self) -> tuple[str, str, int]:
        code = status.main([str(self.run.run.root), "--json"])
        row = json.loads(self.capsys.readouterr().out)
        return row["state"], row["detail"], code


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_life_of_a_run(
    client: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str], backend: str
) -> None:
    run = LightRun(client, tmp_path / "run", ["run", "finish"], sbatch=["hold"], backend=backend)
    told = Told(run, capsys)
    assert told() == ("never submitted", "", 0)
    job = run.submit()
    assert told() == ("waiting", "JobHeldUser", 0)
    client.run("scontrol", "release", job)
    run.wait_until_running(job)
    assert told() == ("running", "n[1-2], starting", 0)
    client.run("scancel", "--signal=TERM", job)
    client.wait_until("requeue", lambda: told() == ("waiting", "BeginTime", 0))
    run.wait_until_over()
    assert told() == ("finished", "", 0)


def test_a_crash_without_a_chain(client: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = LightRun(client, tmp_path / "run", ["crash"], chain=False)
    run.submit()
    run.wait_until_over()
    assert Told(run, capsys)() == ("ended", "FAILED", 1)
    assert status.main([str(run.run.root)]) == 1


@pytest.mark.long
def test_a_time_limit_that_came_too_soon(
    client: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Slurm's words for a job that it ended, which is what the limit does to one that does not leave."""
    run = LightRun(client, tmp_path / "run", ["ignore"], chain=False)
    job = run.submit()
    run.wait_until_running(job)
    client.run("scontrol", "update", f"JobId={job}", "TimeLimit=0:01")
    run.wait_until_over(240)
    assert Told(run, capsys)() == ("ended", "TIMEOUT", 1)
    assert "DUE TO TIME LIMIT" in run.output()


def test_a_list_of_runs_asks_slurm_once_and_passes_over_what_is_no_run(
    client: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = [LightRun(client, tmp_path / "runs" / name, ["finish"], sbatch=["hold"]) for name in ("a", "b")]
    jobs = [run.submit() for run in held]
    (tmp_path / "runs" / "other").mkdir()
    (tmp_path / "runs" / "other" / "plan.json").write_text("{}")
    questions = tmp_path / "questions"
    wrapper = tmp_path / "bin" / "squeue"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\necho >> {questions}; exec /usr/bin/squeue "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:/usr/bin:/bin")
    assert status.main(["--runs-dir", str(tmp_path / "runs")]) == 0
    said = capsys.readouterr()
    assert said.out.count("waiting") == 2
    assert "not a plan" in said.err
    assert questions.read_text() == "\n"
    client.run("scancel", *jobs)


def test_a_controller_that_is_away_is_not_the_end_of_a_run(
    client: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = LightRun(client, tmp_path / "run", ["run", "finish"])
    job = run.submit()
    run.wait_until_running(job)
    follower = QueueFollower(run.plan)
    client.stop_controller()
    try:
        assert status.main([str(run.run.root)]) == 3
        assert "unknown: squeue: " in capsys.readouterr().out
        assert status.main(["--runs-dir", str(tmp_path)]) == 3
        assert follower.poll() is None
        assert "squeue" in follower.unreachable
    finally:
        client.start_controller()
    client.wait_until("answers", lambda: client.state(job) == "RUNNING")
    assert follower.poll() is None
    assert not follower.unreachable
    client.run("scancel", job)
    run.wait_until_over()
    end = follower.poll()
    assert end is not None
    assert end.word == "stopped"
