"""The workers of a run: free workers get the next piece, and write its tokens when their place is known.

A worker holds the tokens of a piece until all pieces before it are encoded and their place in the output is
known; then it writes them there itself. So bytes are written once, by all workers in parallel, and the parent
only does the bookkeeping.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import connection
from typing import Any

from nemolaunch.system.worker_pool import killed, without_interrupts
from nemolaunch.tokenization.output import EncodedPiece
from nemolaunch.tokenization.pieces import InputPiece
from nemolaunch.tokenization.setup import WorkerSetup
from nemolaunch.tokenization.standby import ONE_THREAD, start_standby
from nemolaunch.tokenization.work import serve

# Pieces in progress per worker: enough that one slow piece does not make the others wait.
AHEAD = 4


class WorkerPool:
    """Pool of `count` workers. `free` are those waiting for an order."""

    def __init__(self, count: int, setup: WorkerSetup) -> None:
        context = start_standby()
        self.lock = context.Lock()  # its name disappears with it
        self.orders: list[connection.Connection] = []
        self.processes = []
        for _ in range(count):
            mine, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, self.lock, dict(os.environ)), daemon=True)
            process.start()
            theirs.close()
            self.orders.append(mine)
            self.processes.append(process)
        for orders in self.orders:  # only now: else each worker would have to read it before the next starts
            self._send(orders, setup)
        self.free = deque(range(count))
        self.ahead = AHEAD * count
        self.to_place: list[list[tuple[int, list[int]]]] = [[] for _ in range(count)]
        self.holder: dict[int, int] = {}
        self.placing: dict[int, list[int]] = {}

    def begin(self, piece: InputPiece) -> None:
        """Hand a piece to a free worker."""
        worker = self.free.popleft()
        self.holder[piece.number] = worker
        self._order(worker, piece)

    def place(self, number: int, offsets: list[int]) -> None:
        """Have the worker that holds a piece write its tokens at these offsets, with its next order."""
        self.to_place[self.holder.pop(number)].append((number, offsets))

    def place_now(self) -> None:
        """Order free workers to write their tokens now, without a next piece."""
        for worker in [w for w in self.free if self.to_place[w]]:
            self.free.remove(worker)
            self._order(worker, None)

    def _order(self, worker: int, piece: InputPiece | None) -> None:
        places, self.to_place[worker] = self.to_place[worker], []
        self.placing[worker] = [number for number, _ in places]
        self._send(self.orders[worker], (places, piece))

    def _send(self, orders: connection.Connection, order: Any) -> None:
        try:
            orders.send(order)
        except OSError:
            raise killed(len(self.processes)) from None

    def wait(self) -> Iterator[tuple[list[int], EncodedPiece | None]]:
        """Wait for answers: pieces whose tokens have been written, and a piece that is encoded.

        Raises what the worker raised, or NemolaunchError if it was killed.
        """
        for answer in connection.wait(self.orders):
            worker = self.orders.index(answer)  # type: ignore[arg-type]
            try:
                found: Any = self.orders[worker].recv()
            except (EOFError, OSError):
                raise killed(len(self.processes)) from None
            if isinstance(found, BaseException):
                raise found
            self.free.append(worker)
            yield self.placing.pop(worker), found

    def end(self, *, at_once: bool) -> None:
        """Stop the workers; with `at_once` they do not finish their current order."""
        for orders, process in zip(self.orders, self.processes, strict=True):
            orders.close()
            if at_once:
                process.terminate()
        for process in self.processes:
            process.join()


@contextmanager
def worker_pool(count: int, setup: WorkerSetup) -> Iterator[WorkerPool]:
    """Yield workers that are stopped when the block ends, however it does. Each uses one core."""
    for name, value in ONE_THREAD.items():
        os.environ.setdefault(name, value)
    workers: WorkerPool | None = None
    try:
        with without_interrupts():  # a worker that starts when this process is gone would print where it was
            workers = WorkerPool(count, setup)
        yield workers
    except BaseException:
        if workers is not None:
            workers.end(at_once=True)
        raise
    workers.end(at_once=False)
