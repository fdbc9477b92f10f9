"""A pool of worker processes that leaves nothing behind, however its parent exits."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection, forkserver, resource_tracker
from multiprocessing.context import ForkServerContext, ForkServerProcess, SpawnContext, SpawnProcess
from typing import Any

from nemolaunch.errors import NemolaunchError


class _Process(SpawnProcess):
    """A worker that does not run the caller's script again.

    multiprocessing imports the main module in each child, for functions that are defined there. Ours are not, and a
    script without an `if __name__ == "__main__"` guard would start over in every worker.
    """

    def start(self) -> None:
        with _without_main_module():
            super().start()


class _Context(SpawnContext):
    Process = _Process


# Threads of libraries do not survive a fork, so workers are spawned.
CONTEXT = _Context()


class _ForkedProcess(ForkServerProcess):
    """The same, forked from a process that has nothing but imported modules."""

    def start(self) -> None:
        with _without_main_module():
            super().start()


class _ForkedContext(ForkServerContext):
    Process = _ForkedProcess


_FORKED = _ForkedContext()


def prepare_workers(
    modules: Sequence[str], environment: Mapping[str, str] | None = None
) -> _Context | _ForkedContext:
    """Start the process from which workers are forked, if there is none, which imports modules meanwhile.

    Workers then start without importing anything. They get the environment that this process had then, and
    `environment`: pass the present one to them. Where the folder of temporary files allows no socket, workers are
    spawned.
    """
    _FORKED.set_forkserver_preload(list(modules))
    try:
        resource_tracker.ensure_running()  # the next would start it, and let Ctrl-C through again
        with _variables(environment or {}), without_interrupts():
            forkserver.ensure_running()
    except OSError:
        return CONTEXT
    return _FORKED


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back until the block ends; processes started in it never get it: they would print where they were."""
    in_main = threading.current_thread() is threading.main_thread()
    came: list[int] = []
    # Other threads may take the signal, but only the main thread handles it
    handler = signal.signal(signal.SIGINT, lambda number, _: came.append(number)) if in_main else None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if in_main:
            signal.signal(signal.SIGINT, handler or signal.SIG_DFL)  # None: one that Python did not set
        if came:
            signal.raise_signal(signal.SIGINT)


@contextmanager
def _variables(added: Mapping[str, str]) -> Iterator[None]:
    """Have these environment variables for a block."""
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def take_environment(environment: dict[str, str]) -> None:
    """In a worker: have this environment, and no other variables."""
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)


@contextmanager
def _without_main_module() -> Iterator[None]:
    """Hide where the main module came from while a child is told what to import."""
    main = sys.modules["__main__"].__dict__
    hidden: dict[str, Any] = {name: main[name] for name in ("__spec__", "__file__") if name in main}
    main.update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        main.update(hidden)


@contextmanager
def pool(
    count: int, start: Callable[..., None] | None = None, arguments: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of `count` workers, each of which first calls `start(*arguments)`. Ctrl-C stops them.

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
    """In a worker: leave Ctrl-C to the parent, and exit when the parent does, even if it is killed."""
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
    """Return the error for a worker that was killed, out of `count`."""
    return NemolaunchError(
        "a worker was killed (out of memory?); run the same command again to continue where it stopped,"
        f" with fewer --workers than {count} if memory ran out"
    )
