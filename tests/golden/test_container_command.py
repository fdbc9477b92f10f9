"""The command lines of containers on this machine, as recorded; and what engines say, by recorded answers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from golden.container_plans import CASES, FOLDER, plan_of

from nemolaunch.cli.views.plan_text import plan_text
from nemolaunch.containers.command import passed
from nemolaunch.containers.run import planned_variables, run_command, shell_variables
from nemolaunch.facts.container_engine import container_host, look_at_engine
from nemolaunch.findings import errors
from nemolaunch.planning import Plan


@pytest.mark.parametrize("case", CASES)
def test_command_is_as_recorded(case: str) -> None:
    """`PYTHONPATH=tests python tests/golden/container_plans.py` records the files again."""
    plan = plan_of(case)
    assert not errors(plan.findings), [str(finding) for finding in plan.findings]
    assert run_command(plan) == (FOLDER / f"{case}.txt").read_text(encoding="utf-8").splitlines()


def test_every_option_is_one_of_the_engines_manual() -> None:
    """Those of `docker run`, `podman run` and `apptainer exec`, from their reference pages."""
    both = {
        "--rm", "--interactive", "--pull", "--name", "--init", "--network", "--ipc", "--ulimit", "--user", "--workdir",
        "--volume", "--env",
    }  # fmt: skip
    known = {
        "docker": both | {"--gpus"},
        "podman": both | {"--device", "--security-opt", "--userns"},
        "apptainer": {"--nv", "--cleanenv", "--env", "--pwd", "--bind"},
    }
    for case in CASES:
        plan = plan_of(case)
        assert plan.container is not None
        words = run_command(plan)
        options = {word for word in words[: words.index("python")] if word.startswith("--")}
        assert options <= known[plan.container.engine], case


def test_no_value_of_a_variable_is_in_the_command() -> None:
    for case in ("docker", "apptainer"):
        assert not [word for word in run_command(plan_of(case)) if "a b;c" in word]
        assert "a b;c" in planned_variables(plan_of(case)).values()
    assert passed("apptainer", {"KEY": "1"}) == {"APPTAINERENV_KEY": "1"}
    assert passed("docker", {"KEY": "1"}) == {"KEY": "1"}


def test_what_ranks_get_of_the_shell() -> None:
    shell = {
        "HF_TOKEN": "secret", "WANDB_API_KEY": "secret", "NCCL_DEBUG": "INFO", "https_proxy": "http://proxy:3128",
        "CUDA_VISIBLE_DEVICES": "0,1", "PATH": "/bin", "LD_LIBRARY_PATH": "/lib", "HF_HOME": "/here",
        "AWS_SHARED_CREDENTIALS_FILE": "/here", "PYTHONPATH": "/here",
    }  # fmt: skip
    assert sorted(shell_variables(shell)) == [
        "CUDA_VISIBLE_DEVICES", "HF_TOKEN", "NCCL_DEBUG", "WANDB_API_KEY", "https_proxy",
    ]  # fmt: skip
    assert shell_variables({"MY_DATA": "1", "OTHER": "2"}, named=["MY_DATA"]) == {"MY_DATA": "1"}


def test_exported_values_win_over_presets_and_lose_to_flags() -> None:
    found = planned_variables(plan_of("docker"), {"TOKENIZERS_PARALLELISM": "true", "GREETING": "mine"})
    assert (found["TOKENIZERS_PARALLELISM"], found["GREETING"]) == ("true", "a b;c")


def test_a_saved_plan_gives_the_same_command(tmp_path: Path) -> None:
    plan = plan_of("podman")
    assert run_command(Plan.load(plan.save(tmp_path / "plan.json"))) == run_command(plan)


def test_a_dry_run_shows_the_command_only_if_asked_to() -> None:
    plan = plan_of("docker")
    assert "docker run --rm" in plan_text(plan, with_script=True)
    short = plan_text(plan)
    assert "docker run --rm" not in short
    assert "--show-script prints it" in short
    assert "in docker, image nvcr.io/nvidia/nemo:26.02" in short


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in front of the PATH, for commands that answer as recorded."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return tmp_path


def recorded(folder: Path, name: str, info: object, code: int = 0, image: int = 0) -> None:
    """An engine's answers to `info` and `image inspect`."""
    (folder / "info.json").write_text(json.dumps(info))
    (folder / name).write_text(
        f'#!/bin/bash\ncase "$1" in\ninfo) cat "{folder}/info.json"; exit {code} ;;\nimage) exit {image} ;;\nesac\n'
    )
    (folder / name).chmod(0o755)


def test_what_docker_says(engine: Path) -> None:
    """The fields of `docker info --format '{{json .}}'` of Docker 28."""
    info = {
        "DockerRootDir": str(engine),
        "Runtimes": {"nvidia": {"path": "nvidia-container-runtime"}, "runc": {}},
    }
    recorded(engine, "docker", info)
    seen = look_at_engine("docker", "x")
    assert (seen.installed, seen.error, seen.has_image, seen.gives_gpus) == (True, None, True, True)
    assert seen.storage == str(engine)
    recorded(engine, "docker", {"Runtimes": {"runc": {}}}, image=1)
    seen = look_at_engine("docker", "x")
    assert (seen.has_image, seen.gives_gpus) == (False, False)
    down = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
    recorded(engine, "docker", {"ServerErrors": [down]}, code=1)
    assert look_at_engine("docker", "x").error == down


def test_apptainer_runs_a_file(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded(engine, "apptainer", {})
    monkeypatch.chdir(engine)
    (engine / "nemo.sif").touch()
    assert look_at_engine("apptainer", "./nemo.sif").has_image
    assert not look_at_engine("apptainer", "nvcr.io/nvidia/nemo:26.02").has_image
    assert container_host("apptainer", "./nemo.sif", (), ()).image == str(engine / "nemo.sif")
