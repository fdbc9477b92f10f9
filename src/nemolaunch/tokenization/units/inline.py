"""The one worker of a process that is a worker itself, such as one of Ray's."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nemolaunch.tokenization.output import EncodedPiece
from nemolaunch.tokenization.pieces import InputPiece
from nemolaunch.tokenization.setup import WorkerSetup
from nemolaunch.tokenization.work import Worker


class InlineWorkers:
    """A worker in this process, which encodes a piece when it gets it, in the form of a pool."""

    ahead = 1

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.encoded: list[EncodedPiece] = []
        self.placed: list[int] = []

    @property
    def free(self) -> range:
        """Return the worker, unless a piece waits to be fetched."""
        return range(0 if self.encoded else 1)

    def begin(self, piece: InputPiece) -> None:
        """Encode a piece."""
        self.encoded.append(self.worker.do(piece))

    def place(self, number: int, offsets: list[int]) -> None:
        """Write the tokens of a piece."""
        self.worker.place(number, offsets)
        self.placed.append(number)

    def place_now(self) -> None:
        """Do nothing: they have been written at once."""

    def wait(self) -> Iterator[tuple[list[int], EncodedPiece | None]]:
        """Return what has been written and encoded since the last call."""
        placed, self.placed = self.placed, []
        yield placed, self.encoded.pop() if self.encoded else None


class LockOfThisMachine:
    """Lock that one process of this user on this machine holds at a time; the kernel releases it with the process."""

    def __init__(self) -> None:
        self.path = Path(tempfile.gettempdir(), f"nemolaunch-{os.getuid()}.lock")
        self.file = -1

    def acquire(self) -> None:
        """Wait for the lock."""
        self.file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        fcntl.flock(self.file, fcntl.LOCK_EX)

    def release(self) -> None:
        """Release it."""
        os.close(self.file)


class Kept:
    """A worker that stays loaded from unit to unit, as long as tokenizer and engine are the same."""

    def __init__(self) -> None:
        self.worker: Worker | None = None

    @contextmanager
    def workers(self, setup: WorkerSetup) -> Iterator[InlineWorkers]:
        """Yield the worker for one unit."""
        worker, self.worker = self.worker, None  # after an error it is not used again
        if worker is None or (worker.setup.engine, worker.setup.spec) != (setup.engine, setup.spec):
            worker = Worker(setup, LockOfThisMachine())
        worker.turn_to(setup)
        try:
            yield InlineWorkers(worker)
        finally:
            worker.close()
        self.worker = worker
