"""Variables of a job: shown with where they come from, and no secret among them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from golden.batch_plans import plan_of

from nemolaunch.cli.commands import pretrain
from nemolaunch.cli.views.launch import launch_lines
from nemolaunch.errors import UsageError
from nemolaunch.job.env_presets import PRESETS, given_values, preset_values
from nemolaunch.slurm import batch_job


@pytest.mark.parametrize("name", ["HF_TOKEN", "WANDB_API_KEY", "aws_secret_access_key", "MY_PASSWORD"])
def test_a_secret_is_refused_and_not_repeated(name: str) -> None:
    with pytest.raises(UsageError) as raised:
        given_values([f"{name}=canary"])
    assert f"Export {name}" in str(raised.value)
    assert "canary" not in str(raised.value)


def test_a_secret_is_refused_before_anything_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-M", "llama32_1b", "--executor", "slurm", "--env", "HF_TOKEN=canary", "--dry-run"]
    assert pretrain.main(words) == 2
    said = capsys.readouterr()
    assert "canary" not in said.out + said.err


def test_values_with_equals_signs_and_harmless_names_pass() -> None:
    words = ["NCCL_SOCKET_IFNAME==eth0", "TOKENIZERS_PARALLELISM=true", "CUDA_DEVICE_MAX_CONNECTIONS=1"]
    assert given_values(words)["NCCL_SOCKET_IFNAME"] == "=eth0"
    assert len(given_values(words)) == 3


# Ordinary values from the documentation of NCCL, CUDA, PyTorch, Hugging Face, UCX and Slurm
HARMLESS = """NCCL_IB_HCA==mlx5_0:1,mlx5_2:1
NCCL_TOPO_FILE=/opt/microsoft/ndv4-topo.xml
NCCL_DEBUG_FILE=/tmp/nccl.%h.%p
NCCL_SOCKET_IFNAME=^docker0,lo
NCCL_ALGO=allreduce:tree,ring;broadcast:ring
NCCL_IB_PKEY=0x8001
NCCL_COMM_ID=10.0.0.1:29500
PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True,max_split_size_mb:512
CUBLAS_WORKSPACE_CONFIG=:4096:8
CUDA_VISIBLE_DEVICES=GPU-8932f937-d72c-4106-c12f-20bd9faed9f6
CUDA_VISIBLE_DEVICES=MIG-GPU-8932f937-d72c-4106-c12f-20bd9faed9f6/1/2
HF_HUB_DISABLE_IMPLICIT_TOKEN=1
HF_TOKEN_PATH=/home/me/.cache/token
HF_HOME=/scratch/user/hf_cache_2024_a1b2c3
HF_ENDPOINT=https://hf-mirror.com
WANDB_NAME=llama3model7checkpoint2024final
WANDB_RUN_ID=a1b2c3d4e5f6a7b8c9d0a1b2
GIT_COMMIT=3f786850e387550fdab836ed7e6dc881de23001b
SSH_AUTH_SOCK=/tmp/ssh-XXXX/agent.123
TORCH_NCCL_TRACE_BUFFER_SIZE=2000000
UCX_TLS=rc,ud,sm,cuda_copy,cuda_ipc
LD_LIBRARY_PATH=/usr/local/cuda-12.8/lib64:/opt/amazon/efa/lib
BACKEND=TransformerEngineFusedAttentionBackend
MASTER_ADDR=ip-10-0-12-34.eu-central-1.compute.internal
DATA=s3://bucket/data-3f786850e387550fdab836ed7e6dc881de23001b.tar
MODEL=meta-llama/Llama-3.1-8B-Instruct
MAX_TOKENS=4096
XLA_FLAGS=--xla_gpu_enable_latency_hiding_scheduler=true""".splitlines()
# No real ones; the forms are those of GitHub, AWS's documentation, JWT (RFC 7519) and hashes as keys
SECRET = """GITHUB_PAT=ghp_x
SSH_PRIVATE_KEY=x
WANDB_KEY=x
PGPASS=x
DB_PWD=x
DB_PASSWORD=123456
HTTPS_PROXY=http://u:secret@h
MLFLOW_TRACKING_URI=http://u:secret@h
REMOTE=https://oauth2:glpat-abcdefghijkl@gitlab.example/x.git
FOO=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY
FOO=3f786850e387550fdab836ed7e6dc881de23001b
FOO=Zm9vYmFyYmF6cXV4cXV1eDEyMzQ1Njc4OTA=
FOO=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abc""".splitlines()


@pytest.mark.parametrize("word", HARMLESS)
def test_ordinary_variables_pass(word: str) -> None:
    name, _, value = word.partition("=")
    assert given_values([word]) == {name: value}


@pytest.mark.parametrize("word", SECRET)
def test_what_looks_like_a_secret_by_name_or_value_is_refused(word: str) -> None:
    name, _, value = word.partition("=")
    with pytest.raises(UsageError, match=rf"use --env {name} instead") as raised:
        given_values([word])
    assert len(value) < 5 or value not in str(raised.value)


def test_a_variable_given_by_name_is_passed_on_and_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_PAT", "canary")
    words = ["-M", "llama32_1b", "--executor", "slurm", "--output-dir", str(tmp_path), "--dry-run"]
    pretrain.main([*words, "--env", "GITHUB_PAT", "NOT_SET"])
    said = capsys.readouterr()
    assert "canary" not in said.out + said.err
    assert "--env 'NOT_SET' is not set in this shell" in said.err
    assert "--env 'GITHUB_PAT'" not in said.err
    plan = plan_of("plain", str(tmp_path))
    named = dataclasses.replace(plan, job=plan.job.with_values(env=("GITHUB_PAT",)))
    assert "GITHUB_PAT" in batch_job.container_env(
        named
    )  # which pyxis then takes from the job, not the image


def test_the_files_of_a_plan_with_given_values_are_the_users_only(tmp_path: Path) -> None:
    plan = plan_of("plain", str(tmp_path))
    private = dataclasses.replace(plan, job=plan.job.with_values(env=("A=1",)))
    assert plan.save(tmp_path / "a.json").stat().st_mode & 0o044
    assert private.save(tmp_path / "b.json").stat().st_mode & 0o777 == 0o600


def test_of_two_presets_the_later_one_wins() -> None:
    both = preset_values(["deterministic", "debug"])
    assert both == {**PRESETS["deterministic"].values, **PRESETS["debug"].values}
    assert all(preset.source and preset.values for preset in PRESETS.values())


def test_the_plan_shows_variables_and_mounts_with_where_they_come_from() -> None:
    shown = "\n".join(" ".join(line.split()) for line in launch_lines(plan_of("torchrun")))
    assert "NCCL_NET=AWS Libfabric preset slingshot, unless exported" in shown
    assert "GLOO_SOCKET_IFNAME=hsn0 flag" in shown
    assert "mounts /data/corpus/preprocessed:/data/corpus/preprocessed" in shown
    assert "mounts" not in "\n".join(launch_lines(plan_of("no-container")))
