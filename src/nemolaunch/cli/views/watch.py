"""Show a run in progress: steps, loss, tokens/s, time left."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.live import Live
from rich.markup import escape

from nemolaunch.cli.views.run_progress import RunView, notice
from nemolaunch.data.validation_sets import losses
from nemolaunch.observe.units import losses_of_sets

SHORTEST_PAUSE_S, LONGEST_PAUSE_S, QUIET_PAUSE_S = 5.0, 60.0, 300.0


class Running(Protocol):
    """A run in progress, on this machine or elsewhere."""

    def poll(self) -> int | None:
        """Return the run's exit code; None while it is running."""
        ...

    def new_rows(self) -> list[dict[str, Any]]:
        """Return the rows added to its metrics since the last call."""
        ...


def say(console: Console, text: str) -> None:
    """Print one line exactly as it is, without wrapping or markup."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def say_done(console: Console, text: str) -> None:
    """Print one line about something that succeeded."""
    console.print("[green]✓[/] ", end="")
    say(console, text)


def short(path: Path) -> str:
    """Return a path relative to the current folder, if it is inside it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def watch(console: Console, steps: int, running: Running) -> int:
    """Show a run of `steps` steps until it ends. Return its exit code."""
    view = RunView(steps)
    if not console.is_terminal or console.is_dumb_terminal:
        return _follow(running, _Lines(console, view).show)

    def show(row: dict[str, Any]) -> None:
        view.take(row)
        text = notice(row)
        if text:
            console.print(f"[yellow]![/] {escape(text)}", highlight=False)

    with Live(view, console=console, refresh_per_second=8):
        return _follow(running, show)


def _follow(running: Running, show: Callable[[dict[str, Any]], None]) -> int:
    while True:
        code = running.poll()
        for row in running.new_rows():
            show(row)
        if code is not None:
            return code
        time.sleep(0.1)


class _Lines:
    """Output for logs and pipes: an occasional plain line instead of a moving bar, and fewer in CI."""

    def __init__(self, console: Console, view: RunView) -> None:
        self._console, self._view = console, view
        self._quiet = os.environ.get("CI", "").lower() not in ("", "0", "false")
        self._began = self._next = time.monotonic()

    def show(self, row: dict[str, Any]) -> None:
        view = self._view
        view.take(row)
        if text := notice(row):
            say(self._console, f"! {text}")
        if not self._quiet and (now_does := self._phase(row)):
            say(self._console, f"{now_does} …")
        where = f"step {row['step']}/{view.steps}"
        if "val_loss" in row and not self._quiet:
            right = row.get("val_masked_accuracy")
            more = "" if right is None else f", {right:.1%} of masked tokens correct"
            by_set = losses_of_sets(losses(row))
            sets = f" ({by_set})" if by_set else ""
            say(self._console, f"{where}  validation loss {row['val_loss']:.3f}{more}{sets}")
        if row.get("event") == "checkpoint" and not self._quiet:
            say(self._console, f"{where}  checkpoint")
        now = time.monotonic()
        if "loss" in row and (now >= self._next or row["step"] == view.steps):
            self._next = now + self._pause(now - self._began)
            say(self._console, f"{where}  {view.line()}")
            if row["step"] == view.steps and not self._quiet:
                say(self._console, "validating and saving …")

    def _phase(self, row: dict[str, Any]) -> str:
        """Return what the run does from this row on, if that has a name."""
        if row.get("event") == "phase":
            return str(row.get("text", ""))
        return {"start": "first step", "end": "waiting for the processes to end"}.get(
            row.get("event", ""), ""
        )

    def _pause(self, elapsed_s: float) -> float:
        """Return the seconds until the next line, increasing to a minute, so that even long runs have short logs."""
        return QUIET_PAUSE_S if self._quiet else min(LONGEST_PAUSE_S, SHORTEST_PAUSE_S + elapsed_s / 30)
