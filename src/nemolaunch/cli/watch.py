"""Shows a run that goes on: steps, loss, tokens/s, time left."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from nemolaunch.cli.pace import Pace


class Running(Protocol):
    """A run that goes on, here or elsewhere."""

    def poll(self) -> int | None:
        """Its exit code; None while it goes on."""
        ...

    def new_rows(self) -> list[dict[str, Any]]:
        """Rows of its metrics since the last call."""
        ...


def say(console: Console, text: str) -> None:
    """One line, however long, exactly as it is."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def say_done(console: Console, text: str) -> None:
    """One line about something that went well."""
    console.print("[green]✓[/] ", end="")
    say(console, text)


def short(path: Path) -> str:
    """A path as it is seen from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def watch(console: Console, steps: int, running: Running) -> int:
    """Show a run of so many steps until it ends. Returns its exit code."""
    if not console.is_terminal:
        lines = _Lines(console, steps)
        return _follow(running, lines.show)
    columns = (
        SpinnerColumn(),
        TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
        BarColumn(24),
        TextColumn("{task.fields[status]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, refresh_per_second=4) as progress:
        task = progress.add_task("train", total=steps, status="starting NeMo …")
        pace = Pace()
        return _follow(running, lambda row: _show(progress, task, row, pace, steps))


def _follow(running: Running, show: Callable[[dict[str, Any]], None]) -> int:
    while True:
        code = running.poll()
        for row in running.new_rows():
            show(row)
        if code is not None:
            return code
        time.sleep(0.1)


def _show(progress: Progress, task: TaskID, row: dict[str, Any], pace: Pace, steps: int) -> None:
    if row.get("event") == "start":
        progress.update(task, completed=row["step"], status="first step …")
    elif "loss" in row:
        pace.add(row)
        progress.update(task, completed=row["step"], status=_status(row, pace, steps))


def _status(row: dict[str, Any], pace: Pace, steps: int) -> str:
    eta = _duration(pace.left_s(steps))
    return f"loss {row['loss']:.3f}  {pace.tokens_per_s():,.0f} tokens/s  ETA {eta}"


def _duration(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


class _Lines:
    """For logs and pipes: a plain line now and then instead of a moving bar."""

    def __init__(self, console: Console, steps: int) -> None:
        self._console, self._steps, self._next = console, steps, 0.0
        self._pace = Pace()

    def show(self, row: dict[str, Any]) -> None:
        if "val_loss" in row:
            say(self._console, f"step {row['step']}/{self._steps}  validation loss {row['val_loss']:.3f}")
        if "loss" not in row:
            return
        self._pace.add(row)
        if time.monotonic() < self._next and row["step"] < self._steps:
            return
        self._next = time.monotonic() + 5.0
        status = _status(row, self._pace, self._steps)
        say(self._console, f"step {row['step']}/{self._steps}  {status}")
