"""Control characters and odd encodings in what others wrote."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from report_runs import start, step, write_run

from nemolaunch.cli.commands import report, status
from nemolaunch.cli.main import main
from nemolaunch.cli.views.console import SafeConsole
from nemolaunch.cli.views.render import guarded
from nemolaunch.cli.views.terminal import EscapingStream, escaping
from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.launching.ssh_host import SshHost
from nemolaunch.publish.card import card
from nemolaunch.system.control_characters import escaped, in_markdown

TITLE = "\x1b]0;owned\x07"


@pytest.mark.parametrize("text", [TITLE, "\x9b31m", "a\rb", "\u202etxt.exe", "\u2028", "\x7f"])
def test_escapes(text: str) -> None:
    shown = escaped(text)
    assert shown.isprintable()
    assert json.loads(f'"{shown}"') == text


def test_lines_and_tabs_remain() -> None:
    assert escaped("a\tb\n✓ é") == "a\tb\n✓ é"


def test_streams_keep_everything_else() -> None:
    plain = io.StringIO()
    stream = EscapingStream(plain)
    print("\r50 %", TITLE, file=stream, end="")
    assert plain.getvalue() == "\r50 % \\u001b]0;owned\\u0007"
    assert not stream.isatty()


def test_a_consoles_own_colours_remain(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = io.StringIO()
    monkeypatch.setattr(sys, "stdout", plain)
    with escaping():
        SafeConsole(force_terminal=True, color_system="standard").print(f"[green]{TITLE}[/]", highlight=False)
    assert plain.getvalue() == "\x1b[32m\\u001b]0;owned\\u0007\x1b[0m\n"


def test_closed_output(tmp_path: Path) -> None:
    """`nemolaunch … >&-` gives Python no stream at all."""
    command = f"{sys.executable} -m nemolaunch models >&-"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, env=os.environ)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0


def test_errors_and_notices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [start(), step(1, 9.0), {"event": "loss spike", "step": 1, "time": 1001.0, "text": TITLE}]
    run = write_run(tmp_path / "run", rows)
    status.main([str(run)])
    main(["inspect", "checkpoint", str(tmp_path / TITLE)])
    shown = "".join(capsys.readouterr())
    assert "\x1b" not in shown
    assert shown.count("\\u001b]0;owned\\u0007") >= 2


def test_the_page(tmp_path: Path) -> None:
    rows = [start(), step(1, 9.0), {"event": "loss spike", "step": 1, "time": 1001.0, "text": TITLE}]
    run = write_run(tmp_path / "run", rows)
    evaluation = {
        "step": 1,
        "eval_perplexity": 3.0,
        "ppl_of": {"data": TITLE, "tokens": "<i>", "context_length": "<img src=x>", "stride": 1},
    }
    (run / "evaluations.jsonl").write_text(json.dumps(evaluation) + "\n")
    assert report.main([str(run), "-o", str(tmp_path / "r.html")]) == 0
    page = (tmp_path / "r.html").read_text()
    assert "<img src=x" not in page
    assert "\x1b" not in page


def test_the_card() -> None:
    text = card(
        "me/model", {"model_type": f"x|<script>\n## {TITLE}"}, parameters=1, benchmarks={"a|b<img>": 0.5}
    )
    body = text.split("---")[2]
    assert "\x1b" not in text
    assert "x\\|\\<script\\> ## " in body
    assert "a\\|b\\<img\\>" in text
    assert in_markdown("hellaswag acc_norm") == "hellaswag acc_norm"


@pytest.mark.parametrize("name", ["-oProxyCommand=touch x", "-", "--help"])
def test_a_host_is_no_option(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ssh").write_text("#!/bin/sh\n")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(NemolaunchError, match="begins with a dash"):
        SshHost(name)


def test_own_colours_reach_the_terminal_beside_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that another one calls, as `nemolaunch pretrain` does, with a token in the environment."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def fails(argv: list[str] | None) -> int:
        raise UsageError("not \x1b[2J so, hf_token-of-mine")

    monkeypatch.setenv("HF_TOKEN", "hf_token-of-mine")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setattr("sys.stderr", terminal)
    assert guarded(lambda argv: guarded(fails)(argv))([]) == 2
    assert terminal.getvalue() == "\x1b[1;31merror: \x1b[0mnot \\u001b[2J so, ***\n"
