"""Messages to a webhook: a real server on the loopback gets them, and nothing else gets to know its URL."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from check_jobs import TOKENIZER, write_data

from nemolaunch.cli.commands import pretrain
from nemolaunch.run.folder import RunDir
from nemolaunch.run.news import News
from nemolaunch.system import webhook
from nemolaunch.system.secret_values import masked

SECRET = "T0FAKE/B0FAKE/notarealtoken"


class Hook(BaseHTTPRequestHandler):
    """Takes messages; under /broken it refuses them, under /elsewhere it redirects."""

    def do_POST(self) -> None:
        said = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.startswith("/broken"):
            self.send_error(500)
        elif self.path.startswith("/elsewhere"):
            self.send_response(302)
            self.send_header("Location", "/services/other")
            self.end_headers()
        else:
            self.server.texts.append(json.loads(said)["text"])  # type: ignore[attr-defined]
            self.send_response(200)
            self.end_headers()

    def log_message(self, *words: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Any]:
    found: Any = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    found.texts = []
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


@pytest.fixture
def url(server: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    where = f"http://127.0.0.1:{server.server_port}/services/{SECRET}"
    monkeypatch.setenv(webhook.VARIABLE, where)
    return where


def news(folder: Path, complaints: list[str], *, wanted: bool = True) -> News:
    return News(RunDir(folder), "pretraining (nano)", complaints.append, wanted=wanted)


def test_a_message_arrives_in_slacks_form(server: Any, url: str, tmp_path: Path) -> None:
    complaints: list[str] = []
    sender = news(tmp_path, complaints)
    sender.tell("loss spike", "loss spike at step 23: loss 9.1 after a median of 7.0")
    sender.tell("loss spike", "loss spike at step 24: loss 9.2 after a median of 7.0")
    sender.tell("finished", "finished step 300")
    sender.flush()
    assert sorted(server.texts) == [
        "pretraining (nano): finished step 300",
        "pretraining (nano): loss spike at step 23: loss 9.1 after a median of 7.0",
    ]
    news(tmp_path, complaints, wanted=False).tell("finished", "finished step 300")
    webhook.flush()
    assert (len(server.texts), complaints) == (2, [])


def test_the_failure_of_an_attempt_is_told_by_the_first_process_that_sees_it(
    server: Any, url: str, tmp_path: Path
) -> None:
    for rank in range(3):
        news(tmp_path, []).tell_failure("17.0", f"rank {rank}: OutOfMemoryError: {url} is in the message")
    news(tmp_path, []).tell_failure("17.1", "rank 0: RuntimeError: other")
    assert server.texts == [
        "pretraining (nano): failed: rank 0: OutOfMemoryError: *** is in the message",
        "pretraining (nano): failed: rank 0: RuntimeError: other",
    ]


def test_a_run_tells_what_it_records(server: Any, url: str, tmp_path: Path) -> None:
    from nemolaunch.job import Job
    from nemolaunch.planning import make_plan
    from nemolaunch.ranks import rank_process
    from nemolaunch.ranks.guards import Notice
    from nemolaunch.ranks.step_metrics import StepMetrics

    job = Job(model="nano", tokenizer=TOKENIZER, data=write_data(tmp_path), max_steps=10, gbs=8, notify=True)
    plan = make_plan(job.with_values(output_dir=str(tmp_path / "run")))
    rows = StepMetrics(plan)
    rows.start(0, 100)
    rows.event("checkpoint", 4, seconds=1.0)
    rows.notice(Notice("loss spike", "loss 9.1 after a median of 7.0"), 5)
    rows.end(5, None)
    again = StepMetrics(plan)
    again.start(4, 100)
    again.end(10, None)
    rank_process._record_error(plan, 1, RuntimeError("no memory"))
    rank_process._record_error(plan, 0, RuntimeError("another rank is gone"))
    rank_process.note_end(plan, 10)
    assert sorted(text.removeprefix("pretraining (nano): ") for text in server.texts) == [
        "failed: rank 1: RuntimeError: no memory",
        "finished step 10",
        "loss spike at step 5: loss 9.1 after a median of 7.0",
        "restarted from step 4 of 10",
    ]


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("http://127.0.0.1:{port}/broken/" + SECRET, "answered with HTTP status 500"),
        ("http://127.0.0.1:{port}/elsewhere/" + SECRET, "answered with HTTP status 302"),
        ("http://127.0.0.1:1/" + SECRET, "cannot be reached: Connection refused"),
        ("http://nowhere.invalid/" + SECRET, "cannot be reached: "),
        ("ftp://127.0.0.1/" + SECRET, "is not an http or https URL"),
        ("http://127.0.0.1:x/" + SECRET, "is not an http or https URL"),
    ],
)
def test_what_fails_is_said_once_and_without_the_url(
    where: str, reason: str, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(webhook.VARIABLE, where.format(port=server.server_port))
    complaints: list[str] = []
    sender = news(tmp_path, complaints)
    sender.tell("loss spike", "one")
    sender.flush()
    sender.tell("finished", "two")
    sender.flush()
    (said,) = complaints
    assert said.startswith("--notify: ")
    assert reason in said
    assert SECRET not in said
    assert server.texts == []


def test_nothing_waits_for_a_server_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv(webhook.VARIABLE, f"http://127.0.0.1:{silent.getsockname()[1]}/{SECRET}")
        monkeypatch.setattr(webhook, "TIMEOUT_S", 0.5)
        complaints: list[str] = []
        sender = news(tmp_path, complaints)
        sender.tell("loss spike", "one")
        assert [thread.is_alive() for thread in webhook._pending] == [True]
        sender.flush()
    assert complaints == ["--notify: the webhook cannot be reached: TimeoutError"]


def test_the_url_is_in_no_plan_script_or_output(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    job = [
        "-M",
        "nano",
        "--hf-model-id",
        TOKENIZER,
        "--dataset-dir",
        write_data(tmp_path),
        "--max-steps",
        "10",
    ]
    for where in (["--executor", "slurm", "-A", "a", "-P", "p", "--container-image", "i"], []):
        pretrain.main(
            [*job, *where, "--notify", "--dry-run", "--show-script", "--verbose", "--format", "text"]
        )
        said = "".join(capsys.readouterr())
        assert "--notify" in said
        assert "notify-url" not in said
        assert SECRET not in said
    assert pretrain.main([*job, "--notify", url, "--dry-run"]) == 2
    said = "".join(capsys.readouterr())
    assert "read from NEMOLAUNCH_WEBHOOK_URL" in said
    assert SECRET not in said
    assert SECRET not in masked(f"an error about {url}")
    assert SECRET not in masked(f"https://hooks.slack.com/services/{SECRET}", frozenset())
