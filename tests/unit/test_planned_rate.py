"""The report draws the planned learning rate, and `diagnose` says where a run did not follow it."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_runs import start, step, write_run

from nemolaunch.cli.commands import diagnose
from nemolaunch.observe.reader import read_history
from nemolaunch.observe.report.charts import run_data

LR = {"lr": 1e-3, "warmup_steps": 0, "lr_schedule": "constant"}


def test_the_report_has_the_planned_rate_of_all_steps(tmp_path: Path) -> None:
    run = write_run(
        tmp_path / "run",
        [start(), step(1, 9.0), step(2, 8.0)],
        lr=1e-3,
        min_lr=0.0,
        warmup_steps=0,
        lr_schedule="linear",
    )
    steps, rates = run_data(read_history(run, "run"), 100)["series"]["lr_planned"]
    assert (steps[0], steps[-1]) == (1, 100)
    assert rates[0] == 1e-3
    assert rates[50] == pytest.approx(5e-4)
    assert rates[-1] == pytest.approx(1e-5)


@pytest.mark.parametrize(("lr", "said"), [(1e-3, False), (2e-3, True)], ids=["as planned", "other"])
def test_diagnose_says_where_the_rate_was_not_the_plans(
    lr: float, said: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", [start(), step(1, 9.0), step(2, 8.0)], **{**LR, "lr": lr})
    diagnose.main([str(run)])
    out = capsys.readouterr().out
    assert ("step 2 was trained at the learning rate 0.001, the plan's is 0.002" in out) is said
