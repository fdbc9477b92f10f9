"""The batch script of `nemolaunch preflight`: as recorded, valid for a shell, and with every value as it was given."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import pytest
from golden.batch_plans import CASES, DATA, plan_of

from nemolaunch.preflight.command import command
from nemolaunch.slurm import batch_job, preflight_script

FOLDER = Path(__file__).parent / "preflight"


def script(case: str) -> str:
    return preflight_script.script(plan_of(case), command(plan_of(case)))


@pytest.mark.parametrize("case", CASES)
def test_script_is_as_recorded(case: str) -> None:
    """`python tests/golden/record_batch_scripts.py` records the files again."""
    assert script(case) == (FOLDER / f"{case}.sh").read_text(encoding="utf-8")
    checked = subprocess.run(["bash", "-n"], input=script(case), capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_values_reach_srun_as_they_were_given() -> None:
    """After bash has parsed the srun line, every hostile value is one word, and nothing was run."""
    (line,) = [line for line in script("hostile").splitlines() if line.startswith("srun ")]
    shown = subprocess.run(
        ["bash", "-c", f"SLURM_JOB_ID=7; srun() {{ printf '%s\\n' \"$@\"; }}; {line}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    words = shown.stdout.splitlines()
    assert words[words.index("--container-image") + 1] == CASES["hostile"]["container_image"]
    mounts = words[words.index("--container-mounts") + 1].split(",")
    assert set(CASES["hostile"]["container_mounts"]) <= set(mounts)
    assert words[words.index("--container-workdir") + 1] == "/runs/llama/preflight/code"
    assert words[words.index("--data") + 1] == f"{DATA}.bin"
    assert words[words.index("--attempt") + 1] == "7.0"


def test_unfit_nodes_are_excluded_beside_those_of_the_user() -> None:
    plan = plan_of("preflight")
    assert plan.submission is not None
    again = dataclasses.replace(plan, submission=dataclasses.replace(plan.submission, unfit=("n2", "n9")))
    assert batch_job.options(again)["exclude"] == "n[01-03],n7,n2,n9"
    without = again.job.with_values(exclude_slow=False, exclude=None)
    assert "exclude" not in batch_job.options(dataclasses.replace(again, job=without))
