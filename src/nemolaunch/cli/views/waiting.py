"""What a command does while it has nothing to show yet, such as importing libraries: nobody waits in the dark."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any

from nemolaunch.cli.views.paint import is_terminal
from nemolaunch.system.control_characters import escaped

LINE_AFTER_S = 2.5
TICK_S = 0.2
FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
CLEAR = "\r\x1b[K"


class Waiting:
    """Says on stderr what takes a while: with the seconds on a terminal, elsewhere in one line after some seconds."""

    def __init__(self, what: str) -> None:
        self._what = escaped(what)
        self._stream: Any = getattr(sys.stderr, "plain", sys.stderr)
        self._moves = is_terminal(sys.stderr)
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._paused = self._ended = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Waiting:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the wait, and remove what is shown of it."""
        self.pause()
        self._ended = True
        self._wake.set()

    def pause(self) -> None:
        """Remove what is shown until `resume`, because something else is shown."""
        with self._lock:
            if self._moves and not self._paused:
                self._stream.write(CLEAR)
                self._stream.flush()
            self._paused = True

    def resume(self) -> None:
        """Show it again."""
        self._paused = False

    def over(self, tell: Callable[[str], None]) -> Callable[[str], None]:
        """Return a function that tells something above the wait."""

        def above(text: str) -> None:
            self.pause()
            tell(text)
            self.resume()

        return above

    def before(self, show: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that ends the wait, and then does something that shows its own progress."""

        def after(*args: Any, **options: Any) -> Any:
            self.stop()
            return show(*args, **options)

        return after

    def around(self, bar: Callable[..., AbstractContextManager[Any]]) -> Callable[..., Any]:
        """Return a context manager that shows its own progress, between two waits."""

        @contextmanager
        def shown(*args: Any, **options: Any) -> Iterator[Any]:
            self.pause()
            with bar(*args, **options) as inner:
                yield inner
            self.resume()

        return shown

    def _tick(self) -> None:
        if not self._moves:
            if not self._wake.wait(LINE_AFTER_S) and not self._paused:
                print(f"{self._what} …", file=sys.stderr, flush=True)
            return
        number = 0
        while not self._ended:
            with self._lock:
                if not self._paused:
                    seconds = time.monotonic() - self._began
                    frame = FRAMES[number % len(FRAMES)]
                    self._stream.write(f"{CLEAR}{frame} {self._what} … {seconds:.0f} s")
                    self._stream.flush()
            number += 1
            self._wake.wait(TICK_S)
