"""The report as a page that follows a run: what is served, to whom, and that it changes with the run."""

from __future__ import annotations

import base64
import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from report_runs import start, step, write_run

from nemolaunch.cli.commands import report
from nemolaunch.errors import UsageError
from nemolaunch.observe.report import server as serving

TOKEN = "0123456789abcdef"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", [start(), *(step(n, 9 - n / 10) for n in range(1, 11))])


@pytest.fixture
def served(run: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[serving.ReportServer]:
    monkeypatch.setattr(serving, "REFRESH_S", 0.001)
    server = serving.server_of([run], "127.0.0.1", None)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def asked(
    server: serving.ReportServer, path: str = "/", method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer.status, dict(answer.headers), answer.read().decode()


def password(text: str) -> str:
    return "Basic " + base64.b64encode(f"anybody:{text}".encode()).decode()


def test_the_page_follows_the_run(served: serving.ReportServer, run: Path) -> None:
    code, headers, page = asked(served)
    assert code == 200
    assert "8.900 → 8.000" in page
    assert 'id="live"' in page
    assert asked(served, method="HEAD")[1]["ETag"] == headers["ETag"]
    with open(run / "metrics.jsonl", "a") as file:
        file.write(json.dumps(step(11, 2.5)) + "\n")
    assert asked(served, method="HEAD")[1]["ETag"] != headers["ETag"]
    assert "8.900 → 2.500" in asked(served)[2]


def test_nothing_but_the_report_is_served(served: serving.ReportServer, run: Path) -> None:
    for path in (
        "/plan.json",
        "/../run/plan.json",
        "//etc/passwd",
        "/%2e%2e/plan.json",
        "/?x",
        "/favicon.ico",
    ):
        assert asked(served, path)[0] == 404
    assert asked(served, method="POST")[0] == 501
    assert not (run / "report.html").exists()


def test_pages_of_others_cannot_ask_the_loopback(served: serving.ReportServer) -> None:
    code, _, said = asked(served, Host="attacker.example:80")
    assert code == 403
    assert "9.000" not in said
    for name in ("localhost:8050", "127.0.0.1", "[::1]:8050"):
        assert asked(served, Host=name)[0] == 200


def test_a_token_is_the_password(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(serving.TOKEN_VARIABLE, TOKEN)
    server = serving.server_of([run], "127.0.0.1", None)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        code, headers, said = asked(server)
        assert (code, headers["WWW-Authenticate"][:5]) == (401, "Basic")
        assert "loss" not in said
        for wrong in (password(""), password(TOKEN[:-1]), "Basic ???", f"Bearer {TOKEN}", "Basic"):
            assert asked(server, Authorization=wrong)[0] == 401
        assert asked(server, Authorization=password(TOKEN))[0] == 200
    finally:
        server.shutdown()
        server.server_close()


def test_an_address_that_others_reach_needs_a_token(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(serving.TOKEN_VARIABLE, raising=False)
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        with pytest.raises(UsageError, match=f"export {serving.TOKEN_VARIABLE}"):
            serving.server_of([run], host, None)
    monkeypatch.setenv(serving.TOKEN_VARIABLE, "short")
    with pytest.raises(UsageError, match="fewer than 16 characters"):
        serving.server_of([run], "0.0.0.0", None)
    monkeypatch.setenv(serving.TOKEN_VARIABLE, TOKEN)
    server = serving.server_of([run], "0.0.0.0", None)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        assert asked(server, Host="node7.example.org:8050", Authorization=password(TOKEN))[0] == 200
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--serve", "-o", "x.html"], "--serve writes no files"),
        (["--port", "8050"], "--host and --port are for --serve"),
        (["--serve", "--port", "99999"], "is not available"),
        (["--serve", "--host", "192.0.2.1"], "set a token"),
    ],
)
def test_what_cannot_be_served_is_refused(
    words: list[str], why: str, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(serving.TOKEN_VARIABLE, raising=False)
    assert report.main([str(run), *words]) in (1, 2)
    assert why in capsys.readouterr().err
