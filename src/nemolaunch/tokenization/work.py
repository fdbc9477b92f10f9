"""One worker: it tokenises pieces of the input and writes the tokens where it is told to."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from nemolaunch.system.worker_pool import follow_parent, take_environment
from nemolaunch.tokenization import engines
from nemolaunch.tokenization.files import grown_path
from nemolaunch.tokenization.long_text import LongTexts
from nemolaunch.tokenization.output import EncodedPiece, Output
from nemolaunch.tokenization.pieces import InputPiece
from nemolaunch.tokenization.records import RecordReader, Value, records
from nemolaunch.tokenization.setup import WorkerSetup

# One document in this many is tokenised again by the reference.
RECHECK_EVERY = 10_000
RECHECK_CHARS = 1 << 16


class Worker:
    """Tokeniser of pieces, one per process."""

    def __init__(self, setup: WorkerSetup, giant_lock: Any) -> None:
        self.setup = setup
        self.encode = engines.load(setup.engine, setup.spec)
        self.giant_lock = giant_lock
        self.seen = 0
        self.part = EncodedPiece(0)
        self.held: dict[int, list[Output]] = {}
        self.files: dict[int, int] = {}
        self._long_texts: LongTexts | None = None

    @property
    def long_texts(self) -> LongTexts:
        """Return the encoder of long texts, created at first use."""
        if self._long_texts is None:
            self._long_texts = LongTexts(self.setup.spec, self.encode)
        return self._long_texts

    def sample(self, texts: list[str], ids: Any, lengths: Any) -> None:
        """Keep one text in `RECHECK_EVERY` with its ids; the parent compares them with the reference."""
        if self.setup.engine == "hf":
            return
        first = -self.seen % RECHECK_EVERY
        self.seen += len(texts)
        for i in range(first, len(texts), RECHECK_EVERY):
            if len(texts[i]) <= RECHECK_CHARS:
                end = int(lengths[: i + 1].sum())
                self.part.samples.append((texts[i], ids[end - int(lengths[i]) : end].tobytes()))

    def do(self, piece: InputPiece) -> EncodedPiece:
        """Tokenise a piece and keep its tokens."""
        self.part = EncodedPiece(piece.number)
        outputs = [Output(self) for _ in range(self.setup.outputs)]
        locked: list[bool] = []

        def giant() -> None:
            if not locked:
                self.giant_lock.acquire()
                locked.append(True)

        try:
            columns_of = [self.setup.columns[piece.place_of(file)] for file in range(len(piece.paths))]
            found = records(piece, columns_of, giant)
            self._collect(found, outputs, self._chooser(piece, found))
            self.part.lines, self.part.blank = found.count, found.blank
            self.part.hashes = found.hashes
            self.part.rejects = [(r.file, r.line, r.reason) for r in found.rejects]
            self.part.outputs = [output.finish() for output in outputs]
        finally:
            if locked:
                self.giant_lock.release()
        self.held[piece.number] = outputs
        return self.part

    def turn_to(self, setup: WorkerSetup) -> None:
        """Go on to another run with the same tokenizer and engine."""
        self.setup = setup

    def close(self) -> None:
        """Close the outputs, and forget tokens that have not been written."""
        for file in self.files.values():
            os.close(file)
        self.files, self.held = {}, {}

    def place(self, number: int, offsets: list[int]) -> None:
        """Write the tokens of a piece into the outputs."""
        for place, (output, offset) in enumerate(zip(self.held.pop(number), offsets, strict=True)):
            if output.counts.bin_bytes:
                if place not in self.files:
                    path = grown_path(Path(self.setup.folder), place, "bin")
                    self.files[place] = os.open(path, os.O_WRONLY)
                output.place(self.files[place], offset)

    def _collect(
        self, found: RecordReader, outputs: list[Output], choose: Callable[[Value], int] | None
    ) -> None:
        if choose is None and len(outputs) == 1:
            add = outputs[0].add
            for (value,) in found:
                add(value)
            return
        splits = self.setup.splits
        for values in found:
            split = choose(values[0]) if choose else 0
            for key, value in enumerate(values):
                outputs[key * splits + split].add(value)

    def _chooser(self, piece: InputPiece, found: RecordReader) -> Callable[[Value], int] | None:
        """Return a function from a document's first value to its split; None without splits."""
        setup = self.setup
        if (chosen := setup.validation_sources) is not None:
            return lambda _: int(piece.place_of(found.file) in chosen)
        if setup.validation:
            below = int(setup.validation * 2**64)
            return lambda value: int(document_hash(value) < below)
        return None


def document_hash(value: Value) -> int:
    """Return a number below 2**64 from the texts of the first key: BLAKE2b of their UTF-8."""
    digest = hashlib.blake2b(digest_size=8)
    for text in [value] if isinstance(value, str) else value:
        for start in range(0, len(text), 1 << 20):
            digest.update(text[start : start + (1 << 20)].encode())
    return int.from_bytes(digest.digest(), "big")


def serve(orders: Connection, giant_lock: Any, environment: dict[str, str]) -> None:
    """Process orders until there are no more.

    The first is the setup; the others are (where to write the tokens of earlier pieces, the next piece). The
    answer to each is the encoded piece or the exception it raised: OSError and MemoryError as they are,
    anything else as RuntimeError, because exceptions of a tokenizer library may not be picklable.
    """
    follow_parent()
    take_environment(environment)
    gc.disable()  # nothing here is circular, and the collector would scan every document repeatedly
    worker: Worker | None = None
    with contextlib.suppress(EOFError):
        setup = orders.recv()
        while True:
            places, piece = orders.recv()
            try:
                worker = worker or Worker(setup, giant_lock)
                for number, offsets in places:
                    worker.place(number, offsets)
                orders.send(worker.do(piece) if piece is not None else None)
            except (OSError, MemoryError) as error:
                orders.send(error)
            except BaseException as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                orders.send(
                    RuntimeError(f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})")
                )
    os._exit(0)  # freeing everything that the libraries hold takes a tenth of a second
