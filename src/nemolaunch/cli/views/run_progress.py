"""A run in progress on a terminal: a bar, the latest metrics, the last checkpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from nemolaunch.cli.views.pace import RecentSpeed
from nemolaunch.data.validation_sets import losses
from nemolaunch.observe.units import losses_of_sets
from nemolaunch.run.metrics import ROUTINE_EVENTS

WIDEST_BAR = 48


class RunView:
    """The state of a run as its metrics rows arrive; rich redraws it several times per second.

    Attributes:
        steps: the last step of the run.
        step: steps done; None before training has started.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.step: int | None = None
        self._speed = RecentSpeed()
        self._row: dict[str, Any] = {}
        self._validation: dict[str, Any] = {}
        self._checkpoint: tuple[int, float] | None = None
        self._phase = "starting"
        self._ended = False
        self._began = time.monotonic()
        self._spinner = Spinner("dots", style="cyan")

    def take(self, row: dict[str, Any]) -> None:
        """Take in another row of the run's metrics."""
        if row.get("event") == "phase":
            self._phase, self.step, self._row = str(row.get("text", "")), None, {}
        elif row.get("event") == "end":
            self._ended = True
        elif row.get("event") == "start":
            self._ended = False
            self.step = int(row["step"])
            self._row = {}
        elif row.get("event") == "checkpoint":
            self._checkpoint = (int(row["step"]), time.monotonic())
        elif "val_loss" in row:
            self._validation = row
        elif "loss" in row:
            self._row, self.step = row, int(row["step"])
            self._speed.add(row)

    def figures(self) -> Iterator[str]:
        """Yield the metrics of the latest step, the most important first."""
        row = self._row
        yield f"loss {row['loss']:.3f}"
        if self._validation:
            by_set = losses_of_sets(losses(self._validation))
            yield f"validation {by_set or format(self._validation['val_loss'], '.3f')}"
        if "val_masked_accuracy" in self._validation:
            yield f"masked accuracy {self._validation['val_masked_accuracy']:.1%}"
        yield f"{self._speed.tokens_per_s():,.0f} tokens/s"
        if row.get("mfu"):
            yield f"MFU {row['mfu']:.1%}"
        if row.get("grad_norm") is not None:
            yield f"gradient norm {row['grad_norm']:.2f}"

    def line(self) -> str:
        """Return the metrics as a line for logs."""
        return (
            f"loss {self._row['loss']:.3f}  {self._speed.tokens_per_s():,.0f} tokens/s  "
            f"ETA {clock(self._speed.left_s(self.steps))}"
        )

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        elapsed = clock(time.monotonic() - self._began)
        self._spinner.update(text=self._headline())
        top = Table.grid(padding=(0, 1))
        bar_width = max(8, min(WIDEST_BAR, options.max_width - 50))
        bar = ProgressBar(total=self.steps, completed=self.step or 0, width=bar_width, complete_style="cyan")
        times = Text(self._times(elapsed), style="dim")
        if self._row:
            top.add_row(self._spinner, bar, times)
        else:
            top.add_row(self._spinner, times)
        yield top
        if self._row:
            yield _wrapped(self.figures(), options.max_width)
        if self._checkpoint:
            step, at = self._checkpoint
            ago = clock(time.monotonic() - at)
            yield Text(f"  checkpoint after step {step:,}, {ago} ago", style="dim")

    def _headline(self) -> str:
        if self.step is None:
            return f"{self._phase} …"
        if not self._row:
            return "first step …"
        if self._ended:
            return "waiting for the processes to end …"
        if self.step >= self.steps:
            return "validating and saving …"
        return f"step {self.step:,}/{self.steps:,}"

    def _times(self, elapsed: str) -> str:
        if not self._row:
            return elapsed
        done = (self.step or 0) / self.steps
        return f"{done:.0%}  {elapsed}, {clock(self._speed.left_s(self.steps))} left"


def _wrapped(parts: Iterator[str], width: int) -> Text:
    """Join as many parts as fit into a line, separated by two spaces."""
    text = "  "
    for i, part in enumerate(parts):
        if i and len(text) + 2 + len(part) > width:
            break
        text += ("  " if i else "") + part
    return Text(text)


def notice(row: dict[str, Any]) -> str | None:
    """Return the event in a row as text, or None if it is routine."""
    kind = row.get("event")
    if kind is None or kind in ROUTINE_EVENTS:
        return None
    return f"{kind} at step {row['step']}: {row.get('text', '')}".rstrip(": ")


def clock(seconds: float) -> str:
    """Format seconds as `0:41`, `1:02:03` or `3 d 1:02:03`."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    text = f"{h}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"
    return f"{days} d {text}" if days else text
