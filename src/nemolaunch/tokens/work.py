"""One worker: pieces in, parts of the output on disk out.

A part is `NUMBER.OUTPUT.bin` and `.len` for each output that got something, and last `NUMBER.json`, whose
presence says that the part is complete.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import traceback
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from nemolaunch.tokens import engines
from nemolaunch.tokens.encode import with_eod
from nemolaunch.tokens.long_text import STRIDE, LongTexts
from nemolaunch.tokens.pieces import Piece
from nemolaunch.tokens.records import Document, Reject, records

if TYPE_CHECKING:
    from nemolaunch.tokens.tokenizer import TokenizerSpec

# Characters encoded at once: the reference keeps much per token, and the fast engines gain nothing beyond
# this.
BATCH_CHARS = 1 << 19
BATCH_TEXTS = 1 << 14
# One document in so many is tokenised again by the reference.
RECHECK_EVERY = 10_000
RECHECK_CHARS = 1 << 16


@dataclass(frozen=True)
class Setup:
    """What every worker needs to know.

    Attributes:
        columns: for each source, the column of each key.
        validation: share of documents, by the hash of their first text, that goes to the validation outputs.
        validation_sources: sources that go there whole.
    """

    spec: TokenizerSpec
    engine: str
    folder: str
    keys: tuple[str, ...]
    columns: tuple[tuple[str, ...], ...]
    validation: float = 0.0
    validation_sources: frozenset[int] = frozenset()

    @property
    def splits(self) -> int:
        return 2 if self.validation or self.validation_sources else 1

    @property
    def outputs(self) -> int:
        return len(self.keys) * self.splits


@dataclass
class Counts:
    """Of one output in one part: bytes and CRC-32 of its two files, and what is in them."""

    tokens: int = 0
    sequences: int = 0
    documents: int = 0
    max_id: int = -1
    bin_bytes: int = 0
    bin_crc: int = 0
    len_crc: int = 0


@dataclass
class Part:
    """What is known of a finished piece. `rejects` are (file of the piece, line in the piece, reason)."""

    number: int
    lines: int = 0
    blank: int = 0
    outputs: list[Counts] = field(default_factory=list)
    rejects: list[tuple[int, int, str]] = field(default_factory=list)
    samples: list[tuple[str, bytes]] = field(default_factory=list)

    def to_json(self) -> str:
        values = dataclasses.asdict(self)
        del values["samples"]
        return json.dumps(values)

    @staticmethod
    def from_json(text: str) -> Part:
        values = json.loads(text)
        values["outputs"] = [Counts(**counts) for counts in values["outputs"]]
        values["rejects"] = [(file, line, reason) for file, line, reason in values["rejects"]]
        return Part(**values)


def part_path(folder: Path, number: int, end: str) -> Path:
    """A file of a part: `end` is `json`, `0.bin`, `0.len` …"""
    return folder / f"{number:09d}.{end}"


class Output:
    """The growing part of one output."""

    def __init__(self, worker: Worker, number: int, place: int) -> None:
        self.worker = worker
        self.number = number
        self.place = place
        self.counts = Counts()
        self.file: IO[bytes] | None = None
        self.lengths: list[Any] = []
        self.per_document: list[Any] = []
        self._empty_batch()

    def _empty_batch(self) -> None:
        self.texts: list[str] = []
        self.document_of: list[int] = []
        self.documents = 0
        self.chars = 0

    def add(self, texts: list[str]) -> None:
        """Take one document."""
        if any(len(text) > STRIDE for text in texts):
            self.flush()
            self._add_long(texts)
            return
        for text in texts:
            self.texts.append(text)
            self.document_of.append(self.documents)
            self.chars += len(text)
        self.documents += 1
        if self.chars >= BATCH_CHARS or len(self.texts) >= BATCH_TEXTS:
            self.flush()

    def flush(self) -> None:
        """Encode what has been collected."""
        import numpy as np

        if not self.documents:
            return
        spec = self.worker.setup.spec
        ids, lengths = self.worker.encode(self.texts, True)
        self.worker.sample(self.texts, ids, lengths)
        owners = np.array(self.document_of, np.int64)
        encoded = with_eod(ids, lengths, owners, self.documents, spec.eod_id, spec.dtype)
        self._write(encoded.tokens)
        self._count(encoded.lengths, encoded.per_document)
        self._empty_batch()

    def _add_long(self, texts: list[str]) -> None:
        import numpy as np

        spec = self.worker.setup.spec
        lengths = []
        for text in texts:
            length = 0
            for ids in self.worker.long_texts.ids(text):
                self._write(ids.astype(spec.dtype))
                length += len(ids)
            if length:
                lengths.append(length)
        if lengths:
            lengths[-1] += 1
            self._write(np.array([spec.eod_id], spec.dtype))
        self._count(np.array(lengths, np.int32), np.array([len(lengths)], np.int32))

    def _write(self, tokens: Any) -> None:
        if not len(tokens):
            return
        if self.file is None:
            self.file = open(self._temporary("bin"), "wb", buffering=0)  # noqa: SIM115
        view = memoryview(tokens).cast("B")
        self.counts.bin_crc = zlib.crc32(view, self.counts.bin_crc)
        self.counts.bin_bytes += len(view)
        self.counts.tokens += len(tokens)
        self.counts.max_id = max(self.counts.max_id, int(tokens.max()))
        while view:
            view = view[self.file.write(view) :]

    def _count(self, lengths: Any, per_document: Any) -> None:
        self.lengths.append(lengths)
        self.per_document.append(per_document)
        self.counts.sequences += len(lengths)
        self.counts.documents += len(per_document)

    def finish(self) -> Counts:
        """Put the files of this output in place."""
        self.flush()
        folder = Path(self.worker.setup.folder)
        if self.file is not None:
            self.file.close()
            os.replace(self._temporary("bin"), part_path(folder, self.number, f"{self.place}.bin"))
        if self.counts.documents:
            with open(self._temporary("len"), "wb") as file:
                for array in (*self.lengths, *self.per_document):
                    file.write(array.tobytes())
                    self.counts.len_crc = zlib.crc32(array.tobytes(), self.counts.len_crc)
            os.replace(self._temporary("len"), part_path(folder, self.number, f"{self.place}.len"))
        return self.counts

    def discard(self) -> None:
        """Remove what was begun."""
        if self.file is not None:
            self.file.close()
        for end in ("bin", "len"):
            Path(self._temporary(end)).unlink(missing_ok=True)

    def _temporary(self, end: str) -> str:
        return f"{self.worker.setup.folder}/.{self.number:09d}.{self.place}.{end}.{os.getpid()}.tmp"


class Worker:
    """Turns pieces into parts. One per process."""

    def __init__(self, setup: Setup, giant_lock: Any) -> None:
        self.setup = setup
        self.encode = engines.load(setup.engine, setup.spec)
        self.giant_lock = giant_lock
        self.seen = 0
        self.part = Part(0)
        self._long_texts: LongTexts | None = None

    @property
    def long_texts(self) -> LongTexts:
        if self._long_texts is None:
            self._long_texts = LongTexts(self.setup.spec, self.encode)
        return self._long_texts

    def sample(self, texts: list[str], ids: Any, lengths: Any) -> None:
        """Keep one text in `RECHECK_EVERY` with its ids, for the parent to compare with the reference."""
        if self.setup.engine == "hf":
            return
        first = -self.seen % RECHECK_EVERY
        self.seen += len(texts)
        for i in range(first, len(texts), RECHECK_EVERY):
            if len(texts[i]) <= RECHECK_CHARS:
                end = int(lengths[: i + 1].sum())
                self.part.samples.append((texts[i], ids[end - int(lengths[i]) : end].tobytes()))

    def do(self, piece: Piece) -> Part:
        """Tokenise a piece and commit its part. Nothing is left of a piece that fails."""
        self.part = Part(piece.number)
        outputs = [Output(self, piece.number, i) for i in range(self.setup.outputs)]
        locked: list[bool] = []

        def giant() -> None:
            if not locked:
                self.giant_lock.acquire()
                locked.append(True)

        try:
            found = records(piece, self.setup.columns[piece.source], giant)
            self._collect(found, outputs, self._chooser(piece))
            self.part.lines, self.part.blank = found.count, found.blank
            self.part.outputs = [output.finish() for output in outputs]
        finally:
            for output in outputs:
                output.discard()
            if locked:
                self.giant_lock.release()
        self._commit()
        return self.part

    def _collect(
        self, found: Iterable[Document | Reject], outputs: list[Output], choose: Callable[[Document], int]
    ) -> None:
        splits = self.setup.splits
        for record in found:
            if isinstance(record, Reject):
                self.part.rejects.append((record.file, record.line, record.reason))
                continue
            split = choose(record)
            for key, texts in enumerate(record.texts):
                outputs[key * splits + split].add(texts)

    def _chooser(self, piece: Piece) -> Callable[[Document], int]:
        setup = self.setup
        if setup.validation_sources:
            split = int(piece.source in setup.validation_sources)
            return lambda _: split
        if setup.validation:
            below = int(setup.validation * 2**64)
            return lambda document: int(document_hash(document) < below)
        return lambda _: 0

    def _commit(self) -> None:
        path = part_path(Path(self.setup.folder), self.part.number, "json")
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_text(self.part.to_json(), encoding="utf-8")
        os.replace(temporary, path)


def document_hash(document: Document) -> int:
    """A number below 2**64 from the texts of the first key: BLAKE2b of their UTF-8."""
    digest = hashlib.blake2b(digest_size=8)
    for text in document.texts[0]:
        for start in range(0, len(text), 1 << 20):
            digest.update(text[start : start + (1 << 20)].encode())
    return int.from_bytes(digest.digest(), "big")


_worker: Worker | None = None


def start(setup: Setup, giant_lock: Any) -> None:
    """Begin a worker process."""
    global _worker
    _worker = Worker(setup, giant_lock)


def do(piece: Piece) -> Part:
    """Run one piece in this worker process.

    Raises OSError, or RuntimeError for anything a tokenizer library raises: their own exceptions may not
    travel.
    """
    assert _worker is not None
    try:
        return _worker.do(piece)
    except (OSError, MemoryError):
        raise
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise RuntimeError(f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})") from None
