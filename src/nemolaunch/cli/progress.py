"""A progress bar for work measured in bytes: bytes, documents, tokens a second, time left."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nemolaunch.tokens.run import Tick

# Without a terminal a line is printed now and then instead.
LINE_EVERY_S = 30.0


class Bar:
    """On stderr; nothing is shown of work that is over within a moment where there is no terminal."""

    def __init__(self, total_bytes: int) -> None:
        self.total = total_bytes
        self.begin = time.monotonic()
        self.last_line = self.begin
        self.bytes = self.documents = self.tokens = 0
        self.bar: Any = None

    def __enter__(self) -> Bar:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

            self.bar = Progress(
                BarColumn(),
                DownloadColumn(),
                TextColumn("{task.fields[counts]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self.bar.start()
            self.task = self.bar.add_task("", total=self.total, counts="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def advance(self, tick: Tick) -> None:
        """Count some finished work."""
        self.bytes += tick.bytes
        self.documents += tick.documents
        self.tokens += tick.tokens
        now = time.monotonic()
        speed = self.tokens / max(now - self.begin, 1e-9)
        counts = f"{self.documents:,} documents, {speed:,.0f} tokens/s"
        if self.bar is not None:
            self.bar.update(self.task, completed=self.bytes, counts=counts)
        elif now - self.last_line > LINE_EVERY_S:
            self.last_line = now
            left = (now - self.begin) * (self.total - self.bytes) / max(self.bytes, 1)
            done = f"{self.bytes / 1e6:,.0f} of {self.total / 1e6:,.0f} MB"
            print(f"{done}, {counts}, about {left:,.0f} s left", file=sys.stderr)
