"""What every view says about how a run ended: they must agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemolaunch.cli.commands import diagnose
from nemolaunch.cli.commands import status as status_command
from nemolaunch.observe.report.run_page import run_page
from nemolaunch.observe.status import status


def agree(run: Path, state: str, detail: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Check that status, the list of runs, diagnose and the report give this state and reason, and no other."""
    now = status(run)
    assert (now.state, now.detail) == (state, detail)
    capsys.readouterr()
    assert status_command.main([str(run)]) == 1
    assert f"{state}: {detail}" in capsys.readouterr().out
    status_command.main(["--runs-dir", str(run.parent)])
    (row,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith(f"{run.name} "))
    assert f"  {state}  " in row
    assert detail[:60] in row
    assert diagnose.main([str(run)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"state   {state}")
    assert ("nothing has failed" in said) == (state == "stopped")
    assert detail in said
    page = run_page(run, run.name, 100)
    assert (page.state, page.failure) == (state, detail if state == "failed" else None)
    last = page.sections["events"][-1]
    assert (last.kind, last.text) == (state, detail)
