"""`nemolaunch logs`: the end of a rank's log, however long it is, and what is written from then on."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from golden.batch_plans import saved_plan

from nemolaunch.cli.commands import logs
from nemolaunch.planning import Plan
from nemolaunch.slurm import batch_job


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return saved_plan(tmp_path / "run")


def test_the_last_lines_of_a_rank(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    plan.run.rank_log(3).write_text("".join(f"line {i} of rank 3 名前\n" for i in range(20000)))
    assert logs.main([plan.folder, "--rank", "3", "--lines", "2"]) == 0
    assert capsys.readouterr().out == "line 19998 of rank 3 名前\nline 19999 of rank 3 名前\n"


def test_the_output_of_the_batch_job(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    output = batch_job.task_dir(plan) / "sbatch_llama_14.out"
    output.parent.mkdir(parents=True)
    output.write_text("nemolaunch: finished\n")
    assert logs.main([plan.folder, "--job"]) == 0
    assert capsys.readouterr().out == "nemolaunch: finished\n"


def test_a_rank_without_a_log_is_told_which_there_are(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    for rank in (0, 15):
        plan.run.rank_log(rank).write_text("")
    assert logs.main([plan.folder, "--rank", "16"]) == 1
    assert "there are logs of ranks 0 to 15" in capsys.readouterr().err


def test_follow_goes_on_with_what_is_appended_and_over_a_replaced_file(plan: Plan) -> None:
    log = plan.run.rank_log(0)
    log.write_text("before\n")
    command = [sys.executable, "-m", "nemolaunch.cli.main", "logs", plan.folder, "--follow"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "before\n"
        with open(log, "a") as file:
            file.write("appended\n")
        assert process.stdout.readline() == "appended\n"
        time.sleep(0.6)
        log.write_text("new\n")
        assert process.stdout.readline() == "new\n"
        process.terminate()
