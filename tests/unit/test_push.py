"""`nemolaunch push` against a server that implements the Hub's protocol."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from unit.upload_server import UploadServer

TOKEN = "hf_secretsecretsecret"


@pytest.fixture
def server() -> Iterator[UploadServer]:
    server = UploadServer(TOKEN)
    yield server
    server.close()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Write a model folder as a conversion leaves it."""
    import torch
    from safetensors.torch import save_file

    folder = tmp_path / "hf"
    folder.mkdir()
    save_file({"w": torch.arange(50_000.0)}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "notes.log").write_text("private")
    return folder


def push(server: UploadServer, *words: str, token: str | None = TOKEN) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "HF_ENDPOINT": server.url,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HOME": "/nonexistent",
    }
    environment.pop("HF_TOKEN", None)
    if token:
        environment["HF_TOKEN"] = token
    return subprocess.run(
        [sys.executable, "-m", "nemolaunch.cli.commands.push", *words],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_a_model_arrives_complete_private_tagged_and_in_its_collection(
    server: UploadServer, model: Path
) -> None:
    report = model.with_name("hf.conversion.json")
    report.write_text(
        json.dumps({"source": "/data/runs/x/checkpoints/llama--step=149-consumed_samples=2400.0-last"})
    )
    done = push(server, str(model), "team/small", "--collection", "Small Llamas", "--license", "apache-2.0")
    assert done.returncode == 0, done.stderr
    repo = server.repos["team/small"]
    assert repo.private
    assert set(repo.files) == {"README.md", "config.json", "model.safetensors", "tokenizer.json"}
    assert repo.files["model.safetensors"] == (model / "model.safetensors").read_bytes()
    assert repo.tags == {"step-150": repo.commits[-1]}
    assert server.collections == {"team/small-llamas-1": ["team/small"]}
    front = yaml.safe_load(repo.files["README.md"].decode().split("---")[1])
    assert front["license"] == "apache-2.0"
    assert "50,000 parameters" in repo.files["README.md"].decode()
    assert "private" in done.stdout
    assert "step-150" in done.stdout


def test_the_card_of_the_current_folder_has_its_benchmarks(
    server: UploadServer, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {"tasks": {"hellaswag": {"acc": 0.625, "acc_stderr": 0.1, "num_fewshot": 0}}, "limit": None}
    results = model.with_name("hf.lm-eval.json")
    results.write_text(json.dumps(kept))
    monkeypatch.chdir(model)
    told = push(server, ".", "team/small", "--show-card")
    assert told.returncode == 0, told.stderr
    assert "| hellaswag acc | 0.625 |" in told.stdout
    results.write_text(json.dumps({**kept, "limit": 10}))
    assert "hellaswag" not in push(server, ".", "team/small", "--show-card").stdout


def test_a_second_run_uploads_nothing(server: UploadServer, model: Path) -> None:
    first = push(server, str(model), "team/small", "--tag", "v1", "--json")
    assert json.loads(first.stdout)["sent"] > 200_000
    again = push(server, str(model), "team/small", "--tag", "v1", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["sent"] == 0
    assert len(server.repos["team/small"].commits) == 2
    assert len(server.uploads) == 1


def test_a_dropped_connection_is_retried(server: UploadServer, model: Path) -> None:
    server.drop = 1
    done = push(server, str(model), "team/small")
    assert done.returncode == 0, done.stderr
    assert server.repos["team/small"].files["model.safetensors"] == (model / "model.safetensors").read_bytes()


def test_repositories_are_public_only_on_request(server: UploadServer, model: Path) -> None:
    assert push(server, str(model), "team/open", "--public").returncode == 0
    assert not server.repos["team/open"].private


@pytest.mark.parametrize(
    ("words", "token", "expected"),
    [
        (("team/small",), "hf_wrong", "set HF_TOKEN in the environment to a token with write permission"),
        (("small",), TOKEN, "write OWNER/NAME"),
        (("team/../small",), TOKEN, "is not a valid repository name"),
    ],
)
def test_mistakes_give_one_line(
    server: UploadServer, model: Path, words: tuple[str, ...], token: str, expected: str
) -> None:
    done = push(server, str(model), *words, token=token)
    assert done.returncode != 0
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert not server.repos.get("team/small", None) or not server.repos["team/small"].files


def test_a_nemo_checkpoint_has_to_be_converted_first(server: UploadServer, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    done = push(server, str(tmp_path), "team/small")
    assert "nemolaunch convert" in done.stderr
    assert not server.repos


def test_an_unreachable_server_is_one_sentence(server: UploadServer, model: Path) -> None:
    server.close()
    done = push(server, str(model), "team/small")
    assert done.returncode == 1
    assert "was interrupted" in done.stderr
    assert "Traceback" not in done.stderr
