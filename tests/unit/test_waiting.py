"""A command that has nothing to show yet says what it does, and never in its result."""

from __future__ import annotations

import io
import sys
import threading

import pytest

from nemolaunch.cli.views import waiting
from nemolaunch.cli.views.waiting import CLEAR, Waiting


class Terminal(io.StringIO):
    def __init__(self) -> None:
        super().__init__()
        self.drawn = threading.Event()

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        done = super().write(text)
        if "loading" in text:
            self.drawn.set()
        return done


def test_a_terminal_shows_it_until_there_is_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with Waiting("loading the \x1b[2J model") as wait:
        assert screen.drawn.wait(60)
        wait.over(lambda text: print(text, file=sys.stderr))("a remark")
        screen.drawn.clear()
        assert screen.drawn.wait(60)  # it goes on
    shown = screen.getvalue()
    assert "loading the \\u001b[2J model … 0 s" in shown
    assert f"{CLEAR}a remark\n" in shown
    assert shown.endswith(CLEAR)


def test_a_log_gets_one_line_after_some_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(waiting, "LINE_AFTER_S", 0.0)
    with Waiting("loading the model") as wait:
        wait._thread.join(60)
    assert capsys.readouterr() == ("", "loading the model …\n")


def test_what_is_quick_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Waiting("loading the model") as wait:
        assert wait.before(lambda: "result")() == "result"
    wait._thread.join(60)
    assert capsys.readouterr() == ("", "")
