"""A run whose checkpoints are uploaded is fetched on another machine, and continues as if it had never stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from e2e.jobs import TOKENIZER, llama
from golden.batch_plans import plan_of
from s3_server import BUCKET, S3Server, s3_server

from nemolaunch.cli.commands import upload as upload_command
from nemolaunch.observe.reader import read_history
from nemolaunch.observe.report.report import write_report
from nemolaunch.observe.status import status
from nemolaunch.run import metrics
from nemolaunch.run.folder import RunDir
from nemolaunch.run.uploads import Uploader, fetch, newest_complete, state_of
from nemolaunch.system import locks, remote, upload

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def store() -> Iterator[S3Server]:
    with s3_server() as found:
        yield found


def checkpoint(run: RunDir, step: int, size: int = 1000) -> Path:
    """A folder of NeMo's form."""
    folder = run.checkpoints / f"model--step={step}-consumed_samples={4.0 * step}"
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "__0_0.distcp").write_bytes(os.urandom(size))
    (folder / "weights" / "__0_1.distcp").write_bytes(os.urandom(size))
    (folder / "context").mkdir()
    (folder / "context" / "io.json").write_text("{}")
    return folder


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    found = RunDir(tmp_path / "run")
    checkpoint(found, 1)
    found.plan.write_text('{"plan": true}')
    return found


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_newest_complete_checkpoint_is_fetched(store: S3Server, run: RunDir, tmp_path: Path) -> None:
    """A later one, of which a part was sent, is not taken, and only what is missing is sent afterwards."""
    url = f"{BUCKET}/runs/half"
    assert Uploader(run, url, print).advance()
    later = checkpoint(run, 2)
    half = remote.join(url, "checkpoints", later.name)
    upload.upload_folder(later, half)
    remote.remove(remote.join(half, upload.MARKER))
    remote.remove(remote.join(half, "weights/__0_1.distcp"))
    got = fetch(url, tmp_path / "fetched", print)
    (name,) = os.listdir(got.checkpoints)
    assert files_below(got.checkpoints / name) == files_below(run.checkpoints / name)
    assert "step=1-" in name
    assert got.plan.read_text() == run.plan.read_text()
    store.requests()
    assert Uploader(run, url, print).advance()
    sent = [line for line in store.requests() if line.startswith("PUT") and ".distcp" in line]
    assert [line.split("/")[-1].split("?")[0] for line in sent] == ["__0_1.distcp"]
    assert newest_complete(url) == later.name


def test_a_checkpoint_of_the_same_name_replaces_the_earlier(
    store: S3Server, run: RunDir, tmp_path: Path
) -> None:
    """With `--resume never` a run makes checkpoints of the same names again."""
    url = f"{BUCKET}/runs/anew"
    assert Uploader(run, url, print).advance()
    (path,) = run.checkpoints.iterdir()
    (path / "weights" / "__0_0.distcp").write_bytes(b"other weights")
    assert Uploader(run, url, print).advance()
    got = fetch(url, tmp_path / "fetched", print)
    assert files_below(got.checkpoints / path.name) == files_below(path)


def test_an_unfinished_checkpoint_is_not_uploaded(store: S3Server, run: RunDir) -> None:
    unfinished = checkpoint(run, 3)
    unfinished.with_name(unfinished.name + "-unfinished").touch()
    assert Uploader(run, f"{BUCKET}/runs/unfinished", print).advance()
    assert len(remote.names_in(f"{BUCKET}/runs/unfinished/checkpoints")) == 1


def test_a_checkpoint_of_bridge_is_the_newest_where_it_is_fetched(store: S3Server, tmp_path: Path) -> None:
    """Bridge's record of the newest complete checkpoint says so, here and there; a later one is being written."""
    run = RunDir(tmp_path / "run")
    for number in (2, 4):
        (run.checkpoints / f"iter_{number:07d}").mkdir(parents=True)
        (run.checkpoints / f"iter_{number:07d}" / ".metadata").write_bytes(b"of step")
    (run.checkpoints / "latest_checkpointed_iteration.txt").write_text("2")
    run.plan.write_text("{}")
    assert Uploader(run, f"{BUCKET}/runs/of-bridge", print).advance()
    got = fetch(f"{BUCKET}/runs/of-bridge", tmp_path / "fetched", print)
    newest = got.last_checkpoint()
    assert newest is not None
    assert newest.name == "iter_0000002"
    assert files_below(newest) == {".metadata": b"of step"}


def test_a_failure_is_told_and_repeated(store: S3Server, run: RunDir) -> None:
    said: list[str] = []
    uploader = Uploader(run, "s3://no-such-bucket/runs", said.append)
    assert not uploader.advance()
    state = state_of(run)
    assert state is not None
    assert state.error is not None
    assert "no-such-bucket" in said[0]
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in run.upload.read_text() + said[0]
    assert Uploader(run, f"{BUCKET}/runs/again", said.append).advance()
    state = state_of(run)
    assert state is not None
    assert state.error is None
    assert len(state.uploaded) == 1


def test_a_damaged_object_is_not_taken(store: S3Server, run: RunDir, tmp_path: Path) -> None:
    url = f"{BUCKET}/runs/damaged"
    assert Uploader(run, url, print).advance()
    (name,) = remote.names_in(f"{url}/checkpoints")
    remote.write(f"{url}/checkpoints/{name}/weights/__0_0.distcp", b"x" * 1000)
    with pytest.raises(upload.NemolaunchError, match="SHA-256"):
        fetch(url, tmp_path / "fetched", print)
    assert not list((tmp_path / "fetched").rglob("*.distcp"))


@pytest.fixture
def trained(tmp_path: Path) -> RunDir:
    """A run with a plan, the metrics of two steps, and a checkpoint, made without --upload."""
    plan = plan_of("no-container", str(tmp_path / "llama"))
    plan.save()
    plan.run.metrics.write_text(
        "".join(
            json.dumps(row) + "\n"
            for row in (
                {"event": "start", "step": 0, "time": 100.0, "max_steps": 2},
                {"step": 1, "time": 101.0, "loss": 2.0},
                {"step": 2, "time": 102.0, "loss": 1.5},
            )
        )
    )
    checkpoint(plan.run, 1)
    return plan.run


def test_a_command_uploads_what_a_killed_run_left(
    store: S3Server, trained: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only what is missing is sent, and not beside another upload of the run."""
    assert upload_command.main([str(trained.root)]) == 2
    assert "give a URL" in capsys.readouterr().err
    url = f"{BUCKET}/killed/llama"
    (folder,) = trained.complete_checkpoints()
    there = remote.join(url, "checkpoints", folder.name)
    upload.upload_folder(folder, there)
    remote.remove(remote.join(there, upload.MARKER))
    remote.remove(remote.join(there, "weights/__0_1.distcp"))
    store.requests()
    with locks.held(trained.upload_lock, "busy"):
        assert upload_command.main([str(trained.root), f"{BUCKET}/killed"]) == 1
    assert "is uploading" in capsys.readouterr().err
    assert upload_command.main([str(trained.root), f"{BUCKET}/killed"]) == 0
    assert f"nemolaunch resume {url}" in capsys.readouterr().out
    sent = [line for line in store.requests() if line.startswith("PUT") and ".distcp" in line]
    assert [line.split("/")[-1].split("?")[0] for line in sent] == ["__0_1.distcp"]
    assert newest_complete(url) == folder.name
    assert fetch(url, tmp_path / "fetched", print).metrics.read_text() == trained.metrics.read_text()
    assert upload_command.main([str(trained.root), "s3://no-such-bucket/x"]) == 1
    assert "no-such-bucket" in capsys.readouterr().err


def test_failures_are_events_of_the_run(store: S3Server, trained: RunDir, tmp_path: Path) -> None:
    """Once when they begin and once when they end, even after training, whose time they do not change."""
    import boto3

    url = "s3://made-later/llama"
    command = [sys.executable, "-m", "nemolaunch.ranks.uploading", str(trained.root), url, str(os.getpid())]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        until(lambda: [m for m in read_history(trained.root).marks if m.kind == "upload"])
        *_, told = status(trained.root).notices
        assert told.startswith(f"upload to {url} failed: ")
        assert told.endswith(f"`nemolaunch upload {trained.root}` sends the rest")
        boto3.client("s3").create_bucket(Bucket="made-later")
    assert process.returncode == 0
    history = read_history(trained.root)
    failed, works = [mark for mark in history.marks if mark.kind == "upload"]
    assert (failed.step, works.step) == (2, 2)
    assert failed.text.startswith(f"to {url} failed: ")
    assert works.text == f"to {url} works again"
    assert history.active_s == 2.0
    write_report([trained.root], tmp_path / "report.html")
    assert works.text in (tmp_path / "report.html").read_text()


def until(true: Callable[[], object], timeout_s: float = 120) -> None:
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.2)


def nemolaunch(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nemolaunch.cli.main", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=900, check=False)


@pytest.mark.long
@pytest.mark.parametrize("backend", ["nemo2", "bridge"])
def test_resumed_from_the_store_is_identical(
    backend: str, store: S3Server, data: str, tmp_path: Path
) -> None:
    """The last checkpoint and what was written after the one before are lost with the machine."""
    python = ROOT / ".venv-bridge/bin/python"
    if backend == "bridge" and not python.exists():
        pytest.skip("Megatron-Bridge is not installed")
    url = f"{BUCKET}/{backend}"
    job = ["-M", llama(tmp_path), "--hf-model-id", TOKENIZER, "--dataset-dir", data, "-G", "1", "-gbs", "4"]
    job += ["--precision", "fp32", "--limit-val-batches", "0", "--checkpoint-every", "2", "--max-steps", "4"]
    job += ["-E", "part", "--upload", url, "--backend", backend, "--device", "cpu"]
    job += ["--python", str(python)] if backend == "bridge" else []
    first = nemolaunch("pretrain", *job, cwd=tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    before = tmp_path / "runs/part"
    (half, last) = RunDir(before).complete_checkpoints()
    assert newest_complete(f"{url}/part") == last.name
    remote.remove(f"{url}/part/checkpoints/{last.name}/{upload.MARKER}")
    whole = before.rename(tmp_path / "gone")
    lines = (whole / "metrics.jsonl").read_text().splitlines(keepends=True)
    kept = "".join(line for line in lines if json.loads(line).get("step", 0) <= 2)
    remote.write(f"{url}/part/run/metrics.jsonl", kept.encode())

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    again = nemolaunch("resume", f"{url}/part", cwd=elsewhere)
    assert again.returncode == 0, again.stdout + again.stderr
    losses = [
        {row["step"]: row["loss"] for row in metrics.read(folder / "metrics.jsonl") if "loss" in row}
        for folder in (whole, elsewhere / "runs/part")
    ]
    assert list(losses[0]) == [1, 2, 3, 4]
    assert losses[0] == losses[1]
    assert half.name in [path.name for path in (elsewhere / "runs/part/checkpoints").iterdir()]
    state = state_of(RunDir(elsewhere / "runs/part"))
    assert state is not None
    assert last.name in state.uploaded
    assert newest_complete(f"{url}/part") == last.name
