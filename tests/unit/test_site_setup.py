"""The site's commands in the batch script, run by bash: what they leave to the ranks, and what they must not change."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from check_jobs import findings

from nemolaunch.facts.setup_file import look_at_setup
from nemolaunch.job import Job
from nemolaunch.slurm.site_setup import site_setup

# What guard.sh defines before
GUARD = 'say() { echo "$*"; }\non_exit() { echo "on_exit $? $site_step"; }\ntrap on_exit EXIT\nset +e\n'
SHOWN = (
    'echo "end $- $SLURM_CPUS_PER_TASK ${SLURM_TIMELIMIT-gone} ${SBATCH_PARTITION-gone} $SITE $NCCL_DEBUG"'
)


def run(text: str, **flags: object) -> subprocess.CompletedProcess[str]:
    """Run the lines of a job with these flags, then `text`, as the batch script of a job with 7 cores a task."""
    launch = Job().with_values(executor="slurm", **flags).launch
    lines = site_setup(launch, ("export NCCL_DEBUG=WARN",))
    environment = {"PATH": os.environ["PATH"], "SLURM_CPUS_PER_TASK": "7", "SLURM_CONF": "/etc/slurm.conf"}
    return subprocess.run(
        ["bash", "-c", GUARD + "\n".join((*lines, text))],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


def test_ranks_inherit_what_the_site_exports_and_slurm_keeps_its_own(tmp_path: Path) -> None:
    """Modules of some sites set variables that override the options of a job: aws-samples/aws-eda-slurm-cluster#223."""
    file = tmp_path / "it's a site's $HOME.sh"
    file.write_text(
        "set -eu\ntrap - EXIT\nexport SITE=yes NCCL_DEBUG=INFO\n"
        "export SLURM_CPUS_PER_TASK=1 SLURM_TIMELIMIT=1:0:0 SBATCH_PARTITION=batch\n"
    )
    done = run(SHOWN, setup=str(file))
    options, *values = done.stdout.splitlines()[0].split()[1:]
    assert not set("eu") & set(options)
    assert values == ["7", "gone", "gone", "yes", "WARN"]
    assert done.stdout.splitlines()[-1].startswith("on_exit 0")  # the trap is there again


@pytest.mark.parametrize(
    ("command", "code"),
    [("false", 1), ("exit 3", 3), ("echo 'unbalanced", 2), ("no-such-command", 127), ("set -e; false", 1)],
)
def test_a_command_that_fails_ends_the_attempt_and_is_named(command: str, code: int) -> None:
    done = run("echo reached", pre_commands=("true", command, "echo never"))
    assert "reached" not in done.stdout
    assert "never" not in done.stdout
    assert done.returncode == code
    assert done.stdout.splitlines()[-1] == f"on_exit {code} {command}"


def test_modules_are_loaded_with_the_function_of_the_site(tmp_path: Path) -> None:
    """Of an init file, as Environment Modules and Lmod have one: a job submitted over SSH has not inherited it."""
    (tmp_path / "init").mkdir()
    (tmp_path / "init" / "bash").write_text('module() { shift; export LOADED="$*"; }\n')
    place = f"MODULESHOME={tmp_path}; LMOD_PKG={tmp_path}\n"
    lines = site_setup(Job().with_values(modules=("cuda/12.8", "nccl")).launch, ())
    script = GUARD + place + "\n".join(lines) + '\necho "$LOADED"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == "cuda/12.8 nccl"


def test_without_a_function_for_modules_the_attempt_ends() -> None:
    if Path("/usr/share/modules/init/bash").exists() or Path("/usr/share/lmod/lmod/init/bash").exists():
        pytest.skip("this machine has modules")
    done = run("echo reached", modules=("cuda",))
    assert (done.returncode, "reached" in done.stdout) == (127, False)


def test_a_script_that_bash_cannot_parse_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "site.sh"
    file.write_text("if true; then\n")
    found = look_at_setup(str(file))
    assert found.error is not None
    assert "syntax error" in found.error
    assert (look_at_setup(str(tmp_path)).error, look_at_setup("/no/such").error) == (
        "it is a folder",
        "the file does not exist",
    )
    near = look_at_setup(str(tmp_path / "sites.sh"))
    assert near.instead == str(file)


@pytest.mark.parametrize("command", ["a\nb", "  ", "tab\x07"])
def test_a_command_is_one_line(command: str) -> None:
    (found,) = (f for f in findings("llama32_1b", pre_commands=("true", command)) if f.code == "slurm-setup")
    assert found.fixes[0].changes == {"pre_commands": ("true",)}


@pytest.mark.parametrize("module", ["cuda 12", "-f", "a;id", ""])
def test_a_module_is_a_name(module: str) -> None:
    assert "slurm-setup" in {f.code for f in findings("llama32_1b", modules=(module,))}
