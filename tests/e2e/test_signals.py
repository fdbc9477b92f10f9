"""Signals at a bad moment: one cause, the same in every view, and no process left behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e.command import processes_about, started, wait_for, words
from e2e.views import agree


def importing(run: Path) -> bool:
    """Whether the ranks have started, and import NeMo."""
    return len(list((run / "logs").glob("rank*.log"))) == 2


def in_first_step(run: Path) -> bool:
    """Whether training has begun, and no step is done."""
    metrics = run / "metrics.jsonl"
    return metrics.exists() and '"start"' in metrics.read_text()


def saving(run: Path) -> bool:
    """Whether a checkpoint is being written."""
    return bool(list((run / "checkpoints").glob("*-unfinished")))


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        (importing, signal.SIGINT),
        pytest.param(importing, signal.SIGTERM, marks=pytest.mark.long),
        pytest.param(in_first_step, signal.SIGINT, marks=pytest.mark.long),
        pytest.param(saving, signal.SIGHUP, marks=pytest.mark.long),
    ],
)
def test_a_command_that_is_stopped_is_stopped_everywhere(
    data: str,
    tmp_path: Path,
    moment: Callable[[Path], bool],
    number: signal.Signals,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    process = started(words(tmp_path, data, "--max-steps", "10000", "--checkpoint-every", "1"), tmp_path)
    wait_for(lambda: moment(run), process)
    process.send_signal(number)
    assert process.wait(120) == 130
    assert processes_about(run) == {}
    assert (tmp_path / "err").read_text() == ""
    agree(run, "stopped", "interrupted", capsys)


def test_ranks_that_something_else_ends_have_failed(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    process = started(words(tmp_path, data, "--max-steps", "10000"), tmp_path)
    wait_for(lambda: importing(run), process)
    ranks = [pid for pid, command in processes_about(run, "RANK=").items() if "fdl_runner" in command]
    for pid in ranks:
        os.kill(pid, signal.SIGTERM)
    assert process.wait(120) == 1
    message, *_, cause, _, _ = (tmp_path / "err").read_text().splitlines()
    assert cause.endswith("[terminated]")
    agree(run, "failed", message.removeprefix("error: the job failed. "), capsys)
