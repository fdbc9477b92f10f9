"""What a run that goes on shows: on a terminal of any width, in a log, and in CI."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from nemolaunch.cli.views.run_progress import RunView, clock, notice
from nemolaunch.cli.views.watch import watch

START = {"event": "start", "step": 0, "time": 1000.0}
SPIKE = {"event": "loss spike", "step": 40, "time": 1040.0, "text": "loss [9.1] after a median of 7.0"}


def row(step: int) -> dict[str, Any]:
    return {
        "step": step, "time": 1000.0 + step, "loss": 8.0 - step / 50, "grad_norm": 0.5, "step_time_s": 1.0,
        "tokens_per_s": 4096.0, "mfu": 0.41,
    }  # fmt: skip


ROWS = [
    START,
    *map(row, range(1, 51)),
    {"event": "checkpoint", "step": 50, "time": 1051.0, "seconds": 1.0},
    {"step": 50, "time": 1052.0, "val_loss": 7.25, "validation_s": 1.0},
    SPIKE,
    *map(row, range(51, 76)),
]


class Recorded:
    """A run whose rows come all at once, and which has then ended."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = list(rows)

    def poll(self) -> int | None:
        return None if self._rows else 0

    def new_rows(self) -> list[dict[str, Any]]:
        found, self._rows = self._rows, []
        return found


def shown(width: int, rows: list[dict[str, Any]], **options: Any) -> str:
    """What a terminal of that width shows after these rows."""
    view = RunView(150)
    for one in rows:
        view.take(one)
    console = Console(file=io.StringIO(), width=width, force_terminal=True, **options)
    console.print(view)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 200])
def test_everything_fits_into_the_terminal(width: int) -> None:
    lines = shown(width, ROWS, color_system=None).splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= width
    top, figures, checkpoint = lines
    assert "step 75/150" in top
    assert "50%" in top
    assert "1:15 left" in top
    assert figures.startswith("  loss 6.500  validation 7.250  4,096 tokens/s")
    assert "checkpoint after step 50, 0:00 ago" in checkpoint


def test_it_says_what_it_waits_for() -> None:
    assert "starting …" in shown(80, [])
    importing = {"event": "phase", "step": 0, "time": 999.0, "text": "importing NeMo"}
    assert "importing NeMo …" in shown(80, [importing])
    assert "first step …" in shown(80, [START])


def test_no_color_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[36m" in shown(80, ROWS, color_system="standard")
    monkeypatch.setenv("NO_COLOR", "1")
    plain = shown(80, ROWS, color_system="standard")
    assert "\x1b[36m" not in plain
    assert "\x1b[32m" not in plain


def logged(monkeypatch: pytest.MonkeyPatch, ci: str) -> list[str]:
    """The lines that a pipe gets."""
    monkeypatch.setenv("CI", ci)
    console = Console(file=io.StringIO(), width=80)
    assert watch(console, 150, Recorded(ROWS)) == 0
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_pipe_gets_plain_lines_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = logged(monkeypatch, "")
    assert lines[0] == "first step …"
    assert lines[1].startswith("step 1/150  loss 7.980  4,096 tokens/s  ETA ")
    assert lines[2:] == [
        "step 50/150  checkpoint",
        "step 50/150  validation loss 7.250",
        "! loss spike at step 40: loss [9.1] after a median of 7.0",
    ]


def test_ci_gets_less_but_every_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = logged(monkeypatch, "true")
    assert lines[1:] == ["! loss spike at step 40: loss [9.1] after a median of 7.0"]


def test_a_terminal_gets_warnings_above_the_bar() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    assert watch(console, 150, Recorded(ROWS)) == 0
    assert isinstance(console.file, io.StringIO)
    assert "! loss spike at step 40: loss [9.1] after a median of 7.0" in console.file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (7.4, "0:07"),
        (61, "1:01"),
        (3723, "1:02:03"),
        (86400 * 3 + 3723, "3 d 1:02:03"),
        (86400, "1 d 0:00:00"),
    ],
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_what_a_stream_has_fed_by_a_checkpoint_is_no_notice() -> None:
    """It is written down at each, and has nothing to say."""
    assert notice({"event": "fed", "step": 5, "time": 1.0, "sources": []}) is None
    assert notice(SPIKE) == "loss spike at step 40: loss [9.1] after a median of 7.0"
