"""The batch script of `nemolaunch preflight`: as recorded, valid for a shell, and with every value as it was given."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from golden.batch_plans import CASES, DATA, plan_of

from nemolaunch.preflight.command import command
from nemolaunch.slurm import preflight_script

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
