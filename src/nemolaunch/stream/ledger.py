"""Ledger of the rows that were fed: written by the trainer as it takes samples, read by the audit.

A session is one start of the run. Each of its data-parallel ranks appends to its own file, an Arrow stream,
of which a kill damages at most the end. What was fed after the checkpoint from which a later session resumes
does not count: the weights it changed are lost.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nemolaunch.errors import NemolaunchError
from nemolaunch.run.folder import RunDir
from nemolaunch.stream.order import Array
from nemolaunch.stream.reader import FED
from nemolaunch.system.atomic_files import append_text

ROWS_AT_ONCE = 8192
LEDGER = np.dtype([("sample", "u8"), *((name, FED[name].str) for name in FED.names or ())])
SCHEMA = pa.schema([(name, pa.from_numpy_dtype(LEDGER[name])) for name in LEDGER.names or ()])


@dataclass(frozen=True, kw_only=True)
class Session:
    """One start of a run.

    Attributes:
        resume: `start` for the first, else how it resumed: `exact` or `fresh`.
        seed: of the order of rows; the same in sessions that continue each other.
        samples: seen before it, over all ranks.
        digest: of the manifest.
        windows: rows of a shuffle window of each source.
        held_out: share of each source held out for validation.
    """

    number: int
    time: float
    resume: str
    seed: int
    samples: int
    digest: str
    tokenizer: str
    readers: int
    data_parallel_size: int
    workers: int
    seq_length: int
    names: tuple[str, ...]
    shares: tuple[float, ...]
    unit: str
    windows: tuple[int, ...]
    held_out: float
    shuffle_files: bool


def sessions(run: RunDir) -> list[Session]:
    """Return all sessions of a run, in order. Raises NemolaunchError for an invalid line."""
    try:
        lines = run.stream_sessions.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            lists = {k: tuple(row[k]) for k in ("names", "shares", "windows")}
            found.append(Session(**{**row, **lists}))
        except (ValueError, KeyError, TypeError) as error:
            raise NemolaunchError(
                f"{run.stream_sessions}, line {number}, is not a valid session: {error}"
            ) from None
    return found


def begin_session(run: RunDir, session: Session) -> None:
    """Record a session, before it feeds anything."""
    append_text(run.stream_sessions, json.dumps(dataclasses.asdict(session)) + "\n")


class FedFile:
    """The file of one rank in one session. Rows are on disk after `sync`."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "wb")  # noqa: SIM115
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        self._writer = pa.ipc.new_stream(self._file, SCHEMA, options=options)
        self._waiting: list[Array] = []
        self._count = 0

    def add(self, sample: int, fed: Array) -> None:
        """Add a sample that the trainer took, by its number and its rows."""
        rows = np.empty(len(fed), LEDGER)
        rows["sample"] = sample
        for name in FED.names or ():
            rows[name] = fed[name]
        self._waiting.append(rows)
        self._count += len(rows)
        if self._count >= ROWS_AT_ONCE:
            self._write()

    def _write(self) -> None:
        if self._waiting:
            rows = np.concatenate(self._waiting)
            self._writer.write_batch(pa.record_batch([rows[name] for name in SCHEMA.names], schema=SCHEMA))
            self._waiting, self._count = [], 0
        self._file.flush()

    def sync(self) -> None:
        """Flush all rows to disk."""
        self._write()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write the remaining rows and close the file."""
        self._write()
        self._writer.close()
        self._file.close()


def fed_path(run: RunDir, session: int, rank: int) -> Path:
    """Return the file of a data-parallel rank of a session."""
    return run.stream_fed / f"session-{session:05d}-rank-{rank:05d}.arrows"


def fed(run: RunDir, session: int) -> Iterator[Array]:
    """Yield all rows fed in a session, in batches; those of a rank in the order in which it took them."""
    for path in sorted(run.stream_fed.glob(f"session-{session:05d}-rank-*.arrows")):
        yield from _batches(path)


def _batches(path: Path) -> Iterator[Array]:
    """Yield the complete batches of one file."""
    with open(path, "rb") as file:
        try:
            batches: Any = pa.ipc.open_stream(file)
        except pa.ArrowInvalid:  # killed before anything was written
            return
        while True:
            try:
                batch = batches.read_next_batch()
            except (StopIteration, pa.ArrowInvalid, OSError):
                return
            rows = np.empty(batch.num_rows, LEDGER)
            for name in SCHEMA.names:
                rows[name] = batch.column(name).to_numpy(zero_copy_only=False)
            yield rows
