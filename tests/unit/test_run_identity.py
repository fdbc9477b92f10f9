"""A run is the folder it is in: moved it is itself, a copy is another run that never touches the original."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from golden.batch_plans import saved_plan

from nemolaunch.cli.commands import cancel, status
from nemolaunch.cli.parsing.saved_plan import job_of_plan
from nemolaunch.planning import Plan
from nemolaunch.ranks.folder_watch import FolderWatch
from nemolaunch.run.lock import RunLock
from nemolaunch.slurm import batch_job, own_jobs
from nemolaunch.slurm.queue import QueuedJob
from nemolaunch.system import folder_identity, processes


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """A run on this machine."""
    made = dataclasses.replace(saved_plan(tmp_path / "run"), submission=None)
    made.save()
    return made


@pytest.fixture
def process(plan: Plan) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the run."""
    words = [sys.executable, "-c", "import time; time.sleep(60)"]
    started = subprocess.Popen(words, env={**os.environ, **processes.marked(plan.run.root)})
    while processes.members(plan.run.root) != {started.pid}:
        time.sleep(0.05)
    yield started
    started.kill()
    started.wait()


def job(number: str, name: str = "", submitted: str = "") -> QueuedJob:
    return QueuedJob(
        id=number,
        state="PENDING",
        reason="Priority",
        start="N/A",
        elapsed="0:00",
        limit="1:00",
        nodes="",
        submitted=submitted,
    )


def test_cancelling_a_copy_leaves_the_original_alone(
    plan: Plan, process: subprocess.Popen[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(plan.folder, copy)
    assert cancel.main([str(copy)]) == 0
    assert f"it is a copy of {plan.folder}, whose processes are not touched" in capsys.readouterr().out
    os.rename(
        plan.folder, tmp_path / "elsewhere"
    )  # and the copy is not the original only because that has moved
    assert cancel.main([str(copy)]) == 0
    assert process.poll() is None
    assert processes.members(copy) == set()


def test_a_moved_run_is_running_and_can_be_cancelled(
    plan: Plan, process: subprocess.Popen[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.rename(plan.folder, tmp_path / "moved")
    assert processes.members(tmp_path / "moved") == {process.pid}
    status.main([str(tmp_path / "moved")])
    assert "running" in capsys.readouterr().out
    assert cancel.main([str(tmp_path / "moved")]) == 0
    assert process.wait(10) < 0
    assert not Path(plan.folder).exists()


def test_a_new_run_in_the_place_of_a_moved_one_is_another(
    plan: Plan, process: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    os.rename(plan.folder, tmp_path / "moved")
    plan.save()
    assert processes.members(Path(plan.folder)) == set()
    assert processes.members(tmp_path / "moved") == {process.pid}


@pytest.mark.parametrize("named", ["moved", "moved/plan.json"])
def test_a_moved_run_resumes_where_it_is_with_the_paths_inside_it(
    plan: Plan, tmp_path: Path, named: str
) -> None:
    changed = plan.job.with_values(
        index_mapping_dir=f"{plan.folder}/index", dataset_dir=(f"{plan.folder}/data",)
    )
    dataclasses.replace(plan, job=changed).save()
    os.rename(plan.folder, tmp_path / "moved")
    found, *_ = job_of_plan(tmp_path / named, {})
    assert found.launch.output_dir == str(tmp_path / "moved")
    assert found.data.index_mapping_dir == str(tmp_path / "moved" / "index")
    assert found.data.dataset_dir == (str(tmp_path / "moved" / "data"),)


def test_a_plan_saved_elsewhere_still_names_its_run(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    shutil.copy(plan.run.plan, tmp_path / "notes" / "plan.json")
    found, *_ = job_of_plan(tmp_path / "notes" / "plan.json", {})
    assert found.launch.output_dir == plan.folder


def test_the_id_moves_with_the_folder_and_a_copy_gets_its_own(plan: Plan, tmp_path: Path) -> None:
    first = folder_identity.current(plan.run.root)
    assert first is not None
    shutil.copytree(plan.folder, tmp_path / "copy")
    os.rename(plan.folder, tmp_path / "moved")
    assert folder_identity.claim(tmp_path / "moved").id == first.id
    assert folder_identity.is_copy(tmp_path / "copy")
    assert folder_identity.claim(tmp_path / "copy").id != first.id
    assert not folder_identity.is_copy(tmp_path / "copy")


def test_the_lock_in_a_copy_holds_nobody(plan: Plan, tmp_path: Path) -> None:
    lock = RunLock(plan.run.lock)
    lock.take()
    shutil.copytree(plan.folder, tmp_path / "copy")
    other = RunLock(tmp_path / "copy" / "lock")
    other.take()
    other.release()
    assert plan.run.lock.exists()
    lock.release()


def test_a_run_on_slurm_finds_its_own_jobs_and_no_others(tmp_path: Path) -> None:
    plan = saved_plan(tmp_path / "run")
    plan.run.slurm.mkdir()
    plan.run.slurm_submitted.write_text("41\n")
    plan.run.slurm_attempts.write_text("- 0 1 submitted\n40 0 1 -1 n1\n")
    name = batch_job.job_name(plan)
    queue = {name: [job("40"), job("41"), job("42", submitted="2020-01-01T00:00:00")]}
    assert [found.id for found in own_jobs.queued(plan, queue)] == ["40", "41"]  # 42 is older than the run

    shutil.copytree(plan.folder, tmp_path / "copy")
    copy = Plan.of_run(dataclasses.replace(plan.run, root=tmp_path / "copy"))
    copied_name = batch_job.job_name(copy)
    assert own_jobs.queued(copy, {name: [job("41")], copied_name: [job("43")]}) == []

    os.rename(plan.folder, tmp_path / "moved")
    moved = Plan.of_run(dataclasses.replace(plan.run, root=tmp_path / "moved"))
    assert name in own_jobs.names(moved)
    assert [found.id for found in own_jobs.queued(moved, {name: [job("41"), job("44")]})] == ["41"]


def test_the_first_rank_ends_when_its_folder_is_moved_or_taken(plan: Plan, tmp_path: Path) -> None:
    lock = RunLock(plan.run.lock)
    lock.take()
    watch = FolderWatch(plan.run, confirm_s=0.0)
    assert watch.look() is None
    plan.run.lock.with_name("theirs").write_text("slurm 12 0\n")
    os.replace(plan.run.lock.with_name("theirs"), plan.run.lock)
    assert watch.look() == f"another process has taken {plan.folder} over: slurm 12 0"
    os.rename(plan.folder, tmp_path / "moved")
    why = watch.look()
    assert why is not None
    assert f"was moved to {tmp_path / 'moved'}" in why
    assert f"nemolaunch resume {tmp_path / 'moved'}" in why


def test_the_first_rank_keeps_the_lock_of_a_suspended_command(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nemolaunch.ranks.folder_watch.TOUCH_EVERY_S", 0.0)
    plan.run.lock.write_text("local elsewhere 1\n")
    watch = FolderWatch(plan.run)
    os.utime(plan.run.lock, (1, 1))
    assert watch.look() is None
    assert time.time() - plan.run.lock.stat().st_mtime < 60
