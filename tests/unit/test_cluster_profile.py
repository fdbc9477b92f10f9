"""Profiles of clusters: what they set, what wins over them, and what the doctor says about them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from check_jobs import TOKENIZER, write_data

from nemolaunch.cli.commands import doctor, plan, pretrain, tokenize
from nemolaunch.cli.parsing.cluster_profile import profiles_folder, read_profile
from nemolaunch.errors import UsageError

PROFILE = """\
account: physics
partition: gpu
image: /images/nemo.sqsh
mounts: [/scratch:/scratch]
network-preset: [slingshot]
launcher: torchrun
modules: [cuda/12.8]
setup: /site/setup.sh
pre-commands: ["ulimit -l unlimited"]
time: 4:00:00
ssh-host: me@login.cluster
"""


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    file = tmp_path / "config" / "nemolaunch" / "clusters" / "big.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(PROFILE)
    return file


def test_a_profile_sets_the_fields_of_a_job(profile: Path) -> None:
    found = read_profile("big")
    assert (found.path, found.ssh, found.ssh_python) == (profile, "me@login.cluster", None)
    assert found.values == {
        "executor": "slurm",
        "account": "physics",
        "partition": "gpu",
        "container_image": "/images/nemo.sqsh",
        "container_mounts": ("/scratch:/scratch",),
        "env_preset": ("slingshot",),
        "launcher": "torchrun",
        "modules": ("cuda/12.8",),
        "setup": "/site/setup.sh",
        "pre_commands": ("ulimit -l unlimited",),
        "time": "4:00:00",
    }


def test_without_xdg_config_home_profiles_are_below_the_home_folder() -> None:
    home = Path("~/.config/nemolaunch/clusters").expanduser()
    assert profiles_folder({}) == profiles_folder({"XDG_CONFIG_HOME": "relative"}) == home


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("acount: physics\n", "a profile has no key 'acount'; did you mean account?"),
        ("network_presets: [efa]\nimag: x\n", "did you mean network-preset?; a profile has no key 'imag'"),
        ("seq_length: 2048\n", "a profile has no key 'seq_length': it describes a cluster"),
        ("launcher: mpirun\n", "--launcher takes one of srun, torchrun"),
        ("container-runtime: docker\n", "takes one of pyxis, apptainer, podman, none, not 'docker'"),
        ("container-runtime: none\nimage: x\n", "runs no image"),
        ("ssh: 3\n", "ssh takes a host"),
        ("- account\n", "must contain flag names and values"),
        ("account: [\n", "is not YAML: line 2, column 1: expected the node content"),
    ],
)
def test_a_wrong_key_or_value_is_named(profile: Path, text: str, says: str) -> None:
    profile.write_text(text)
    with pytest.raises(UsageError) as raised:
        read_profile("big")
    assert says in str(raised.value)
    assert "--cluster" in str(raised.value)


def test_an_unknown_profile_is_named_with_the_nearest(profile: Path) -> None:
    with pytest.raises(UsageError, match=r"no profile .*bigg\.yaml; did you mean big\?"):
        read_profile("bigg")
    with pytest.raises(UsageError, match="there are big"):
        read_profile("other")


def test_file_and_flags_win_over_the_profile(
    profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "job.yaml"
    data = write_data(tmp_path)
    config.write_text(
        f"model_name: llama32_1b\ndataset_dir: {data}\nhf_model_id: {TOKENIZER}\nlauncher: srun\n"
    )
    words = [
        "--config",
        str(config),
        "--cluster",
        "big",
        "-P",
        "debug",
        "--output-dir",
        str(tmp_path / "r"),
        "--json",
    ]
    plan.main(words)
    shown = json.loads(capsys.readouterr().out)
    assert {name: shown["values"][name] for name in ("account", "partition", "launcher", "executor")} == {
        "account": "physics",
        "partition": "debug",
        "launcher": "srun",
        "executor": "slurm",
    }
    origins = {name: shown["origins"][name] for name in ("account", "partition", "launcher", "executor")}
    assert origins == {
        "account": "cluster big",
        "partition": "flag",
        "launcher": "file job.yaml",
        "executor": "cluster big",
    }


def test_an_unknown_cluster_ends_a_command_without_a_traceback(
    profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pretrain.main(["-M", "llama32_1b", "--cluster", "bog", "--dry-run"]) == 2
    assert "did you mean big?" in capsys.readouterr().err


def test_tokenising_on_a_cluster_runs_its_commands(
    profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a stone"}\n')
    words = ["--hf-tokenizer", TOKENIZER, "--data-prefix", "a", "--input-dir", str(tmp_path / "a.jsonl")]
    assert (
        tokenize.main([*words, "--output-dir", str(tmp_path), "--cluster", "big", "-A", "mine", "--dry-run"])
        == 0
    )
    array = capsys.readouterr().out.split("#!/bin/bash")[1]
    assert "#SBATCH --account=mine\n" in array
    assert "#SBATCH --partition=gpu\n" in array
    assert "set -e\nmodule load cuda/12.8\n. /site/setup.sh\nulimit -l unlimited\n" in array
    assert "--cluster" not in array


SINFO = "gpu|1-00:00:00|4|gpu:h100:8|up|0/4/0/4|1-infinite"


def test_the_doctor_tries_a_profile(
    profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the answers of Slurm's commands in place of a cluster."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {"sbatch": "", "sinfo": f"echo '{SINFO}'", "srun": "echo --container-image="}.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    site = tmp_path / "site.sh"
    site.write_text("export SITE=1\n")
    image = tmp_path / "nemo.sqsh"
    image.touch()
    profile.write_text(f"account: physics\npartition: gpu\nimage: {image}\nsetup: {site}\ntime: 12:00:00\n")
    assert doctor.main(["--cluster", "big"]) == 0
    said = capsys.readouterr().out
    assert "partition gpu: 4 of 4 nodes up, 8 GPUs each" in said
    assert f"the image {image} is there" in said
    assert "set-up script work" in said
    profile.write_text(f"account: physics\npartition: gpus\nimage: {image}x\nsetup: {site}\ntime: 2-0\n")
    assert doctor.main(["--cluster", "big"]) == 1
    said = capsys.readouterr().out
    assert "gpus is not a partition of this cluster, which has gpu" in said
    assert "the file does not exist" in said
