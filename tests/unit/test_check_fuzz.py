"""No command line or configuration makes the launcher crash; `benchmarks/checks/fuzz.py` tries more of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz_cli import (
    LAUNCH_COMMANDS,
    architectures,
    command_lines,
    configurations,
    furnish,
    layout_lines,
    survives,
    write,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

QUICK = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
COMMANDS = st.sampled_from(LAUNCH_COMMANDS)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run outside the repository, in an environment without secrets."""
    furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))


@QUICK
@given(words=command_lines(), command=COMMANDS)
def test_any_command_line_ends_with_a_message(words: list[str], command: str) -> None:
    survives(words, command)


@QUICK
@given(drawn=layout_lines())
def test_any_layout_ends_with_a_message(drawn: tuple[str, list[str]]) -> None:
    survives(drawn[1], drawn[0])


@QUICK
@given(text=configurations(), command=COMMANDS)
def test_any_configuration_ends_with_a_message(text: str, command: str, tmp_path: Path) -> None:
    survives(["--config", str(write(tmp_path, text))], command)


@QUICK
@given(text=architectures())
def test_any_architecture_ends_with_a_message(text: str, tmp_path: Path) -> None:
    survives(["-M", str(write(tmp_path, text)), "--dataset-dir", "text_document"], "pretrain")
