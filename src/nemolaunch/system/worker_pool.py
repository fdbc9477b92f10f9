"""A pool of worker processes that leaves nothing behind, however its parent ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection
from typing import Any

from nemolaunch.errors import NemolaunchError

# Threads of libraries would not survive a fork, so that workers are started anew.
CONTEXT = multiprocessing.get_context("spawn")


@contextmanager
def pool(
    count: int, start: Callable[..., None] | None = None, arguments: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """So many workers, each begun with `start(*arguments)`. Ctrl-C ends them at once.

    Raises NemolaunchError if one is killed.
    """
    executor = ProcessPoolExecutor(count, CONTEXT, _begin, (start, arguments))
    try:
        yield executor
    except KeyboardInterrupt:
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    except BrokenProcessPool:
        raise killed(count) from None
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _begin(start: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    follow_parent()
    if start is not None:
        start(*arguments)


def follow_parent() -> None:
    """In a worker: leave Ctrl-C to the parent, and end when it does, even if that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel

    def watch() -> None:
        connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def killed(count: int) -> NemolaunchError:
    """What to say when a worker of so many is gone."""
    return NemolaunchError(
        "a worker was killed (out of memory?); run the same command again to go on where it was,"
        f" with fewer --workers than {count} if memory was short"
    )
