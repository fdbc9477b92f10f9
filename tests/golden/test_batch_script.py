"""The batch script of a dry run: as recorded, as NeMo-Run writes it, and valid for a shell."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from golden.batch_plans import CASES, plan_of

from nemolaunch.slurm import batch_job, batch_script

FOLDER = Path(__file__).parent / "sbatch"


@pytest.mark.parametrize("case", CASES)
def test_script_is_as_recorded(case: str) -> None:
    """`python tests/golden/record_batch_scripts.py` records the files again."""
    assert batch_script.script(plan_of(case)) == (FOLDER / f"{case}.sh").read_text(encoding="utf-8")


def test_script_is_what_nemo_run_submits(tmp_path: Path) -> None:
    """All cases of NeMo 2 go through NeMo-Run's own SlurmExecutor, in one separate process, as it is slow to import."""
    program = Path(__file__).parent / "materialise.py"
    run = subprocess.run(
        [sys.executable, program, tmp_path], capture_output=True, text=True, cwd=tmp_path, timeout=300
    )
    assert run.returncode == 0, run.stderr[-2000:]
    for case in CASES:
        plan = plan_of(case, str(tmp_path / case))
        assert batch_job.script_path(plan).read_text(encoding="utf-8") == batch_script.script(plan), case


@pytest.mark.parametrize("case", CASES)
def test_script_is_valid_bash(case: str) -> None:
    checked = subprocess.run(
        ["bash", "-n"], input=batch_script.script(plan_of(case)), capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr


def test_values_reach_srun_as_they_were_given() -> None:
    """After bash has parsed the srun line, every hostile value is one word, and nothing was run."""
    plan = plan_of("hostile")
    (line,) = [line for line in batch_script.script(plan).splitlines() if line.startswith("srun --output")]
    shown = subprocess.run(
        ["bash", "-c", f"srun() {{ printf '%s\\n' \"$@\"; }}; {line}"],
        capture_output=True,
        text=True,
        check=True,
    )
    words = shown.stdout.splitlines()
    assert words[words.index("--container-image") + 1] == CASES["hostile"]["container_image"]
    mounts = words[words.index("--container-mounts") + 1].split(",")
    assert set(CASES["hostile"]["container_mounts"]) <= set(mounts)
    options = {line for line in batch_script.script(plan).splitlines() if line.startswith("#SBATCH")}
    (comment,) = [option for option in options if option.startswith("#SBATCH --comment=")]
    assert shlex.split(comment, comments=False)[1] == "--comment=" + CASES["hostile"]["comment"]


def exported(case: str, *names: str, **environment: str) -> list[str]:
    """Return the values of variables after the script's exports, in a shell with that environment."""
    lines = batch_script.script(plan_of(case)).splitlines()
    exports = "\n".join(line for line in lines if line.startswith("export "))
    shown = subprocess.run(
        ["bash", "-c", exports + "".join(f'\nprintf "%s\\n" "${name}"' for name in names)],
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return shown.stdout.splitlines()


def test_variables_are_exported_whole() -> None:
    names = ("NCCL_SOCKET_IFNAME", "A", "lower_case", "EMPTY", "TOKENIZERS_PARALLELISM")
    found = exported("hostile", *names, TOKENIZERS_PARALLELISM="true", A="mine")
    assert found == ["eth0;id", CASES["hostile"]["env"][0].removeprefix("A="), "$x y", "", "true"]


def test_exported_values_win_over_those_of_a_preset() -> None:
    names = ("NCCL_NET", "NCCL_CROSS_NIC", "NCCL_SOCKET_IFNAME")
    assert exported("torchrun", *names) == ["AWS Libfabric", "1", "hsn0"]
    exports = {"NCCL_NET": "IB", "NCCL_SOCKET_IFNAME": "eth0"}
    assert exported("torchrun", *names, **exports) == ["IB", "1", "hsn0"]
