"""`nemolaunch push` against a server that implements the Hub's protocol."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
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
    folder = tmp_path / "hf"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(weights(first=0))
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "notes.log").write_text("private")
    return folder


PUSH = (sys.executable, "-m", "nemolaunch.cli.commands.push")


def environment(server: UploadServer, token: str | None = TOKEN) -> dict[str, str]:
    environment = {
        **os.environ,
        "HF_ENDPOINT": server.url,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HOME": "/nonexistent",
    }
    environment.pop("HF_TOKEN", None)
    if token:
        environment["HF_TOKEN"] = token
    return environment


def push(server: UploadServer, *words: str, token: str | None = TOKEN) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PUSH, *words],
        env=environment(server, token), capture_output=True, text=True, timeout=120, check=False,
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


def test_a_tag_of_an_earlier_commit_is_not_taken_for_this_one(server: UploadServer, model: Path) -> None:
    assert push(server, str(model), "team/small", "--tag", "v1").returncode == 0
    (model / "config.json").write_text('{"model_type": "llama", "vocab_size": 7}')
    done = push(server, str(model), "team/small", "--tag", "v1")
    assert done.returncode == 1
    assert "but the tag v1 existed before and names commit 00000000" in done.stderr
    assert "set another --tag" in done.stderr
    assert push(server, str(model), "team/small", "--tag", "v2").returncode == 0
    assert server.repos["team/small"].tags["v2"] == server.repos["team/small"].commits[-1]


@pytest.mark.long
@pytest.mark.parametrize(("moment", "sent"), [("before", signal.SIGKILL), ("after", signal.SIGHUP)])
def test_killed_at_any_request_it_leaves_the_old_model_or_the_new_one(
    server: UploadServer, model: Path, moment: str, sent: int
) -> None:
    """Before a request is seen, or before it is answered. The next push succeeds."""
    assert push(server, str(model), "team/small").returncode == 0
    num_requests = next(server.requests) - 1
    for number in range(1, num_requests + 1):
        (model / "config.json").write_text(json.dumps({"number": number}))
        (model / "model.safetensors").write_bytes(weights(first=number))
        old, new = uploaded(server), {path.name: path.read_bytes() for path in model.glob("*.[js]*")}
        server.requests = itertools.count(1)
        with subprocess.Popen(
            [*PUSH, str(model), "team/small"], env=environment(server), stderr=subprocess.DEVNULL
        ) as process:
            setattr(server, moment, killing(process, number, sent))
        assert process.returncode == -sent
        server.before = server.after = lambda at: None
        assert uploaded(server) in (old, new), number
        assert push(server, str(model), "team/small").returncode == 0
        assert uploaded(server) == new


def killing(process: subprocess.Popen[bytes], number: int, sent: int) -> Callable[[int], None]:
    """Return what sends a signal at the request with that number, and waits for the end."""

    def at(request: int) -> None:
        if request == number:
            process.send_signal(sent)
            process.wait(60)

    return at


def uploaded(server: UploadServer) -> dict[str, bytes]:
    """Return the model's files, without its card."""
    return {
        name: content for name, content in server.repos["team/small"].files.items() if name != "README.md"
    }


def weights(first: float) -> bytes:
    """Return a safetensors file."""
    import torch
    from safetensors.torch import save

    return save({"w": torch.arange(first, 50_000.0)})


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
