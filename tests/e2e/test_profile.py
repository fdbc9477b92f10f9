"""Profiling: traces of the steps and ranks asked for, in the run's folder."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest
from e2e.command import ENVIRONMENT, TIMEOUT_S, words
from e2e.jobs import planned, train
from forkserver import ForkServer

from nemolaunch.observe.report.sections import traces

# Takes the options of nsys up to the command, says which they were, and runs the command.
NSYS = """\
#!/bin/sh
log={log}
while [ $# -gt 0 ]; do
    case $1 in
        -o) out=$2; shift 2 ;;
        -s | -t) shift 2 ;;
        profile | --*) shift ;;
        *) break ;;
    esac
done
echo "$out" >> "$log"
exec "$@"
"""


def test_pytorch_traces_the_steps_of_the_rank_asked_for(
    fork_server: ForkServer, data: str, tmp_path: Path
) -> None:
    plan = planned(
        tmp_path, data, max_steps=5, num_gpus=2, profile="pytorch", profile_steps="2:4", profile_ranks=["1"]
    )
    train(fork_server, plan)
    assert [path.name for path in (plan.run.traces / "device").iterdir()] == ["rank-1.json"]
    events = json.loads((plan.run.traces / "device" / "rank-1.json").read_text())["traceEvents"]
    steps = {event["name"] for event in events if str(event.get("name", "")).startswith("ProfilerStep")}
    assert len(steps) == 2
    assert any("aten::" in str(event.get("name")) for event in events)
    assert {path.name for path in traces(plan.run)} == {"rank-1.json"}


@pytest.mark.long
def test_nemo_run_starts_the_job_under_nsys(data: str, tmp_path: Path) -> None:
    """With a stand-in for nsys, which has nothing to record where there is no GPU."""
    (tmp_path / "bin").mkdir()
    nsys = tmp_path / "bin" / "nsys"
    nsys.write_text(NSYS.format(log=tmp_path / "nsys.log"))
    nsys.chmod(nsys.stat().st_mode | stat.S_IXUSR)
    job = words(tmp_path, data, "--max-steps", "2", "--profile", "nsys", "--profile-steps", "0:1")
    path = f"{nsys.parent}{os.pathsep}{ENVIRONMENT['PATH']}"
    done = subprocess.run(
        [*job, "--force", "profile-nsys-on-cpu"],
        cwd=tmp_path,
        env={**ENVIRONMENT, "PATH": path},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "nsys.log").read_text().strip() == str(tmp_path / "run" / "traces" / "profile_%p")
