"""The output of one piece: tokens that its worker holds until their place in the output is known."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Protocol

from nemolaunch.tokenization.encode import with_eod
from nemolaunch.tokenization.files import append_range, write_all
from nemolaunch.tokenization.long_text import STRIDE, LongTexts
from nemolaunch.tokenization.setup import WorkerSetup

if TYPE_CHECKING:
    from nemolaunch.tokenization.records import Value

# Characters encoded at once: texts, ids and arrays then stay in a core's cache.
BATCH_CHARS = 1 << 18
BATCH_TEXTS = 1 << 14
# Beyond this many bytes tokens wait on disk: those of a document of a hundred megabytes.
HELD_BYTES = 64 << 20


@dataclass
class OutputCounts:
    """What one piece adds to one output.

    `lengths` are int32 tokens of each sequence, `per_document` int32 sequences of each document, as bytes.
    """

    tokens: int = 0
    max_id: int = -1
    bin_bytes: int = 0
    lengths: bytes = b""
    per_document: bytes = b""

    @property
    def sequences(self) -> int:
        """Return the number of sequences."""
        return len(self.lengths) // 4

    @property
    def documents(self) -> int:
        """Return the number of documents."""
        return len(self.per_document) // 4


@dataclass
class EncodedPiece:
    """Counts of a finished piece. `rejects` are (file of the piece, line in the piece, reason).

    `hashes` are those of files that were read as a whole, by path.
    """

    number: int
    lines: int = 0
    blank: int = 0
    outputs: list[OutputCounts] = field(default_factory=list)
    rejects: list[tuple[int, int, str]] = field(default_factory=list)
    samples: list[tuple[str, bytes]] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)


class EncodingWorker(Protocol):
    """The worker as its outputs see it."""

    setup: WorkerSetup

    @property
    def long_texts(self) -> LongTexts:
        """Return the encoder of long texts."""

    @property
    def encode(self) -> Any:
        """Return the function that encodes texts."""

    def sample(self, texts: list[str], ids: Any, lengths: Any) -> None:
        """Keep some of the texts with their ids, for a comparison with the reference."""


class Output:
    """The tokens of one piece for one output."""

    def __init__(self, worker: EncodingWorker) -> None:
        self.worker = worker
        self.counts = OutputCounts()
        self.held: list[Any] = []
        self.held_bytes = 0
        self.spilled: IO[bytes] | None = None
        self.lengths: list[Any] = []
        self.per_document: list[Any] = []
        self._empty_batch()

    def _empty_batch(self) -> None:
        self.texts: list[str] = []
        self.texts_of: list[int] | None = None  # of each document; None: one each
        self.documents = 0
        self.chars = 0

    def add(self, value: Value) -> None:
        """Add one document."""
        if type(value) is str:
            size = len(value)
            if size > STRIDE:
                self._add_long([value])
                return
            if self.texts_of is not None:
                self.texts_of.append(1)
            self.texts.append(value)
            self.chars += size
        else:
            if any(len(text) > STRIDE for text in value):
                self._add_long(list(value))
                return
            if self.texts_of is None:
                self.texts_of = [1] * self.documents
            self.texts_of.append(len(value))
            self.texts += value
            self.chars += sum(map(len, value))
        self.documents += 1
        if self.chars >= BATCH_CHARS or len(self.texts) >= BATCH_TEXTS:
            self.flush()

    def flush(self) -> None:
        """Encode the documents collected so far."""
        if not self.documents:
            return
        spec = self.worker.setup.spec
        ids, lengths = self.worker.encode(self.texts, True)
        self.worker.sample(self.texts, ids, lengths)
        encoded = with_eod(ids, lengths, self.texts_of, spec.eod_id, spec.dtype)
        self._hold(encoded.tokens)
        self.lengths.append(encoded.lengths)
        self.per_document.append(encoded.per_document)
        self._empty_batch()

    def _add_long(self, texts: list[str]) -> None:
        import numpy as np

        self.flush()
        spec = self.worker.setup.spec
        lengths = []
        for text in texts:
            length = 0
            for ids in self.worker.long_texts.ids(text):
                self._hold(ids.astype(spec.dtype))
                length += len(ids)
            if length:
                lengths.append(length)
        if lengths:
            lengths[-1] += 1
            self._hold(np.array([spec.eod_id], spec.dtype))
        self.lengths.append(np.array(lengths, np.int32))
        self.per_document.append(np.array([len(lengths)], np.int32))

    def _hold(self, tokens: Any) -> None:
        if not len(tokens):
            return
        self.counts.tokens += len(tokens)
        self.counts.max_id = max(self.counts.max_id, int(tokens.max()))
        self.counts.bin_bytes += tokens.nbytes
        self.held.append(tokens)
        self.held_bytes += tokens.nbytes
        if self.held_bytes > HELD_BYTES:
            self._spill()

    def _spill(self) -> None:
        if self.spilled is None:
            self.spilled = tempfile.TemporaryFile(dir=self.worker.setup.folder, buffering=0)  # noqa: SIM115
        write_all(self.spilled.fileno(), self.held)
        self.held, self.held_bytes = [], 0

    def finish(self) -> OutputCounts:
        """Encode the rest and return the counts. The tokens are kept until they are placed."""
        import numpy as np

        self.flush()
        if self.lengths:
            self.counts.lengths = np.concatenate(self.lengths).tobytes()
            self.counts.per_document = np.concatenate(self.per_document).tobytes()
        return self.counts

    def place(self, fd: int, offset: int) -> None:
        """Write the tokens into the output at their place and release them."""
        os.lseek(fd, offset, os.SEEK_SET)
        if self.spilled is not None:
            append_range(self.spilled.fileno(), fd, os.fstat(self.spilled.fileno()).st_size)
            self.spilled.close()
        write_all(fd, self.held)
        self.held = []
