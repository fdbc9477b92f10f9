"""A progress bar for work measured in bytes: amount done, speed, time left."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nemolaunch.tokenization.request import Tick

# Without a terminal, a line is printed at this interval instead.
LINE_EVERY_S = 30.0


class Bar:
    """A progress bar on stderr. Without a terminal, nothing is shown for work that takes only a moment.

    `total` is in bytes, None while not known.
    """

    def __init__(self, total: int | None, title: str = "") -> None:
        self.total = total
        self.title = title
        self.begin = self.last_line = time.monotonic()
        self.first: int | None = None
        self.bar: Any = None

    def __enter__(self) -> Bar:
        if sys.stderr.isatty():
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

            from nemolaunch.cli.views.console import SafeConsole

            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(),
                TextColumn("{task.fields[counts]}"),
                TimeRemainingColumn(),
                console=SafeConsole(stderr=True),
            )
            self.bar.start()
            self.task = self.bar.add_task(self.title, total=self.total, counts="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    @property
    def seconds(self) -> float:
        """Seconds since the bar was created."""
        return max(time.monotonic() - self.begin, 1e-9)

    def show(self, done: int, counts: str = "", total: int | None = None) -> None:
        """Show that `done` bytes are done; `counts` is additional text."""
        self.total = self.total if total is None else total
        if self.first is None:
            self.first = done
        if self.bar is not None:
            self.bar.update(self.task, completed=done, total=self.total, counts=counts)
        elif time.monotonic() - self.last_line > LINE_EVERY_S:
            self.last_line = time.monotonic()
            print(self._line(done, counts), file=sys.stderr)

    def _line(self, done: int, counts: str) -> str:
        of = f" of {self.total / 1e6:,.0f}" if self.total else ""
        new = done - (self.first or 0)
        left = f", about {self.seconds * (self.total - done) / new:,.0f} s left" if self.total and new else ""
        title, more = f"{self.title}: " if self.title else "", f", {counts}" if counts else ""
        return f"{title}{done / 1e6:,.0f}{of} MB{more}{left}"

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self.bar is not None:
            self.bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=sys.stderr)


class TokenBar(Bar):
    """A progress bar that also shows documents and tokens per second."""

    def __init__(self, total: int) -> None:
        super().__init__(total)
        self.done = self.documents = self.tokens = 0

    def advance(self, tick: Tick) -> None:
        """Add finished work."""
        self.done += tick.bytes
        self.documents += tick.documents
        self.tokens += tick.tokens
        self.show(self.done, f"{self.documents:,} documents, {self.tokens / self.seconds:,.0f} tokens/s")

    def totals(self) -> str:
        """Return a summary of the total work and its speed."""
        speed = f"{self.done / self.seconds / 1e6:,.1f} MB/s, {self.tokens / self.seconds:,.0f} tokens/s"
        return f"{self.done / 1e6:,.1f} MB in {self.seconds:,.1f} s: {speed}"


@contextlib.contextmanager
def byte_bar(label: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
    """Show a bar for one phase; yield a function to call with each number of bytes done."""
    done = 0
    with Bar(total_bytes, label) as bar:

        def advance(count: int) -> None:
            nonlocal done
            done += count
            bar.show(done)

        yield advance
