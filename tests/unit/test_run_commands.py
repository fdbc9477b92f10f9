"""status, follow, resume, cancel, diagnose: runs that are named wrongly, never started, cancelled, or out of reach."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from golden.batch_plans import saved_plan

from nemolaunch.cli.commands import cancel, diagnose, follow, resume, status
from nemolaunch.cli.parsing.saved_plan import job_of_plan
from nemolaunch.errors import NemolaunchError
from nemolaunch.planning import Plan
from nemolaunch.slurm import batch_job
from nemolaunch.slurm.submission import sbatch
from nemolaunch.system.atomic_files import write_json


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """Two runs for Slurm in ./runs."""
    monkeypatch.chdir(tmp_path)
    return [saved_plan(tmp_path / "runs" / name) for name in ("llama", "qwen")]


@pytest.fixture
def local(runs: list[Plan]) -> Plan:
    """A run on this machine."""
    plan = dataclasses.replace(runs[0], submission=None)
    plan.save()
    return plan


def without_slurm(monkeypatch: pytest.MonkeyPatch, folder: Path, squeue: str = "") -> None:
    """A machine without Slurm's commands, but for that squeue if there is one."""
    folder.mkdir()
    if squeue:
        (folder / "squeue").write_text(f"#!/bin/sh\n{squeue}\n")
        (folder / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("llama", "the folder does not exist; did you mean runs/llama?"),
        ("runs/lama", "the folder does not exist; did you mean runs/llama?"),
        ("runs", "it has no plan.json; it contains the runs runs/"),
        ("elsewhere", "the folder does not exist"),
    ],
)
@pytest.mark.parametrize("command", [status, follow, resume, cancel, diagnose])
def test_a_folder_that_is_no_run_is_told_with_the_runs_that_may_be_meant(
    runs: list[Plan], capsys: pytest.CaptureFixture[str], command: object, typed: str, said: str
) -> None:
    assert command.main([typed]) == 1  # type: ignore[attr-defined]
    assert f"error: {typed} is not a run folder: {said}" in capsys.readouterr().err


def test_a_run_may_be_named_by_its_plan(local: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    assert status.main(["runs/llama/plan.json", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["folder"] == local.folder


def test_a_run_that_was_stopped_by_hand_has_not_failed(
    local: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ranks that are told to end fail in many ways; that says nothing."""
    write_json(local.run.local_end, {"state": "stopped", "detail": "interrupted"})
    local.run.rank_error(1).write_text(
        json.dumps({"rank": 1, "time": 1.0, "type": "ConnectionRefusedError", "message": "refused"})
    )
    assert status.main([local.folder]) == 1
    assert "stopped: interrupted" in capsys.readouterr().out
    assert diagnose.main([local.folder]) == 0
    assert capsys.readouterr().out == "state   stopped: interrupted\nnothing has failed\n"


def test_a_run_that_failed_is_listed_with_what_failed(
    local: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    local.run.rank_error(1).write_text(
        json.dumps({"rank": 1, "time": 1.0, "type": "ValueError", "message": "no such thing " * 20})
    )
    status.main([])
    (row,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("llama"))
    assert "failed" in row
    assert "rank 1: ValueError: no such thing" in row
    assert row.endswith("…")


def test_what_was_cancelled_before_it_began_has_not_failed(
    runs: list[Plan], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without_slurm(monkeypatch, tmp_path / "bin", "exit 0")
    runs[0].run.slurm.mkdir()
    runs[0].run.slurm_stopped.write_text("cancelled by the user\n")
    assert diagnose.main([runs[0].folder]) == 0
    assert capsys.readouterr().out == "state   stopped: cancelled by the user\nnothing has failed\n"


def test_a_run_that_was_cancelled_after_a_failure_still_tells_that(
    runs: list[Plan], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without_slurm(monkeypatch, tmp_path / "bin", "exit 0")
    run = runs[0].run
    output = batch_job.task_dir(runs[0]) / "sbatch_llama_14.out"
    output.parent.mkdir(parents=True)
    output.write_text(
        "nemolaunch: start 14.0 on n1\nsrun: error: n1: task 2: Segmentation fault\n"
        "nemolaunch: start 14.1 on n1\nslurmstepd-n1: error: *** JOB 14 ON n1 CANCELLED AT 2026-11-21T02:29:20 ***\n"
    )
    run.slurm.mkdir()
    run.slurm_attempts.write_text("- 0 1 submitted\n14 0 2 -1 n1\n14 1 3 -1 n1\n")
    run.slurm_current.write_text("14 1\n")
    run.slurm_stopped.write_text("cancelled by the user\n")
    assert diagnose.main([runs[0].folder]) == 0
    said = capsys.readouterr().out
    assert said.startswith(
        "state   stopped: cancelled by the user\nlast failed attempt:\nfailed  rank 2: Segmentation"
    )


def test_to_follow_where_there_is_no_slurm_ends_at_once(
    runs: list[Plan], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without_slurm(monkeypatch, tmp_path / "bin")
    assert follow.main([runs[0].folder]) == 1
    assert capsys.readouterr().err.startswith("error: squeue is not installed: run this on")
    assert status.main([runs[0].folder]) == 3


def test_a_list_does_not_ask_again_for_each_run_when_slurm_does_not_answer(
    runs: list[Plan], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = tmp_path / "asked"
    refuse = "echo 'squeue: error: Unable to contact slurm controller' >&2; exit 1"
    without_slurm(monkeypatch, tmp_path / "bin", f"echo >> {asked}; {refuse}")
    assert status.main([]) == 3
    assert capsys.readouterr().out.count("squeue: Unable to contact slurm controller") == len(runs)
    assert asked.read_text() == "\n"


def test_resume_follows_also_what_was_detached_before(runs: list[Plan]) -> None:
    """`--detach` and the jobs waited for are of the command that was typed then, not of the run."""
    plan = dataclasses.replace(runs[0], job=runs[0].job.with_values(detach=True, dependency="afterok:7"))
    plan.save()
    again = job_of_plan(plan.run.root, {})[0].launch
    assert (again.detach, again.dependency) == (False, None)
    assert job_of_plan(plan.run.root, {"detach": True})[0].launch.detach


def test_slurms_refusal_is_told_once_in_its_own_words() -> None:
    said = "sbatch: error: Batch job submission failed: Invalid feature specification\n"
    with pytest.raises(NemolaunchError, match=r"Invalid feature specification$") as refused:
        sbatch(["script.sh"], lambda command: (1, "", said + said))
    assert str(refused.value) == f"the job was not submitted: {said.strip()}"


def test_the_id_of_a_job_is_that_without_its_cluster() -> None:
    asked = []

    def shell(command: str) -> tuple[int, str, str]:
        asked.append(command)
        return 0, "a notice of the site\n4711;cluster\n", ""

    assert sbatch(["--requeue", "/runs/a b/script.sh"], shell) == "4711"
    assert asked == ["sbatch --parsable --requeue '/runs/a b/script.sh'"]


def test_a_machine_without_sbatch_is_told() -> None:
    with pytest.raises(NemolaunchError, match="needs sbatch, which is not installed"):
        sbatch(["script.sh"], lambda command: (127, "", "bash: sbatch: command not found"))
