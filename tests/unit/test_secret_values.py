"""Secrets are hidden wherever text goes: terminal, logs, records."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nemolaunch.cli.commands import status
from nemolaunch.system.secret_values import masked, secrets_in, without_password


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at http://user:SECRETPASS@host:9/x", "at http://user:***@host:9/x"),
        ("s3://key:se%2Fcret@bucket and ssh://git:pw@h", "s3://key:***@bucket and ssh://git:***@h"),
        ("http://host:80/a@b and mail me@host", "http://host:80/a@b and mail me@host"),
        ("registry/nemo:26.02@sha256:abc", "registry/nemo:26.02@sha256:abc"),
        ("bad credentials ghp_abcdefghijklmnop", "bad credentials ***"),
    ],
)
def test_passwords_in_urls_and_tokens_are_hidden(text: str, shown: str) -> None:
    assert masked(text, frozenset()) == shown


def test_secrets_of_the_environment_are_hidden_alone_too() -> None:
    environment = {
        "HTTPS_PROXY": "http://me:pass%40word@proxy:3128",
        "HF_TOKEN": "tok-1234567",
        "PATH": "/usr/bin",
        "HF_TOKEN_PATH": "/home/me/token",
        "TOKENIZERS_PARALLELISM": "false",
    }
    secrets = secrets_in(environment)
    assert secrets == {"pass%40word", "pass@word", "tok-1234567"}
    assert masked("proxy says pass@word is wrong", secrets) == "proxy says *** is wrong"


def test_the_address_of_mlflow_is_used_without_its_password() -> None:
    """MLflow's documentation: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD for HTTP basic authentication."""
    assert without_password({"MLFLOW_TRACKING_URI": "http://me:p%40ss@h:5000/x"}) == {
        "MLFLOW_TRACKING_URI": "http://h:5000/x",
        "MLFLOW_TRACKING_USERNAME": "me",
        "MLFLOW_TRACKING_PASSWORD": "p@ss",
    }
    assert without_password({"MLFLOW_TRACKING_URI": "http://h:5000"}) == {}


def test_commands_hide_them(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://me:canary99@hub")
    before = sys.stdout
    assert status.main(["/nowhere/canary99"]) == 1
    said = capsys.readouterr()
    assert "canary99" not in said.out + said.err
    assert said.err.startswith("error: /nowhere/*** is not a run folder")
    assert sys.stdout is before


def test_what_a_rank_prints_is_masked_and_its_file_keeps_working() -> None:
    code = (
        "import sys, logging, traceback; from nemolaunch.system.secret_values import mask_streams; mask_streams();"
        "print('to http://a:canary@h', flush=True); sys.stderr.write('canary99\\n'); logging.warning('canary99');"
        "print(sys.stdout.fileno(), sys.stdout.isatty(), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(sys.path), "MLFLOW_TRACKING_URI": "http://u:canary99@h"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "to http://a:***@h\n"
    assert done.stderr == "***\nWARNING:root:***\n1 False\n"
