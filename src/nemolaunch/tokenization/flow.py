"""Distribution of pieces to the workers, and of their results to the output, in order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sized
from pathlib import Path
from typing import Any, NoReturn, Protocol

from nemolaunch.data.causes import cause_of
from nemolaunch.system.atomic_files import write_text
from nemolaunch.tokenization.assemble import Assembler
from nemolaunch.tokenization.output import EncodedPiece
from nemolaunch.tokenization.pieces import InputPiece, cut
from nemolaunch.tokenization.request import EngineMismatch, RecordRefused, Tick, TokenizeRequest
from nemolaunch.tokenization.setup import WorkerSetup
from nemolaunch.tokenization.worker_pool import worker_pool


def tokenise(request: TokenizeRequest, piece_bytes: int, sinks: Sinks) -> int:
    """Run every piece that is not done yet. Return how many were done before.

    Raises EngineMismatch, NemolaunchError for a record that is not a document, or OSError.
    """
    if sinks.assembler.progress.rejects and request.on_error == "stop":
        stop(request)
    try:
        return _tokenise(request, piece_bytes, sinks)
    except RuntimeError as error:
        if request.engine != "hf":
            raise EngineMismatch(f"{request.engine} failed: {error}") from None
        raise


def _tokenise(request: TokenizeRequest, piece_bytes: int, sinks: Sinks) -> int:
    folder, resumed = request.work_folder, sinks.assembler.progress.pieces
    with worker_pool(request.workers, setup_of(request, folder)) as workers:
        distribute(cut(request.sources, piece_bytes, folder / "spool", resumed), workers, sinks)
    return resumed


def setup_of(request: TokenizeRequest, folder: Path) -> WorkerSetup:
    """Return what the workers of a run have to know, which write into that folder."""
    return WorkerSetup(
        request.spec,
        request.engine,
        str(folder),
        request.keys,
        request.columns,
        request.validation,
        request.validation_sources,
    )


class Workers(Protocol):
    """Workers to which pieces can be handed; `ahead` is how many pieces may be under way."""

    ahead: int

    @property
    def free(self) -> Sized:
        """Return the workers that wait for an order."""

    def begin(self, piece: InputPiece) -> None:
        """Hand a piece to a free worker."""

    def place(self, number: int, offsets: list[int]) -> None:
        """Have the tokens of a piece written at these offsets."""

    def place_now(self) -> None:
        """Have tokens written without a next piece."""

    def wait(self) -> Iterator[tuple[list[int], EncodedPiece | None]]:
        """Wait for answers: pieces whose tokens have been written, and a piece that is encoded."""


def distribute(pieces: Iterator[InputPiece], workers: Workers, sinks: Sinks) -> None:
    """Hand out the pieces that are not done yet, and take their results in order."""
    resumed = next_place = sinks.assembler.progress.pieces
    under_way: dict[int, InputPiece] = {}
    encoded: dict[int, EncodedPiece] = {}
    written: dict[int, EncodedPiece] = {}
    exhausted = False
    while under_way or not exhausted:
        while workers.free and not exhausted and len(under_way) < workers.ahead:
            piece = next(pieces, None)
            exhausted = piece is None
            if piece is None:
                break
            if piece.number < resumed:
                sinks.passed(piece)
                continue
            under_way[piece.number] = piece
            workers.begin(piece)
        if exhausted or len(under_way) >= workers.ahead:
            workers.place_now()
        for placed, part in workers.wait() if under_way else ():
            for number in placed:
                sinks.checked(encoded[number])
                written[number] = encoded.pop(number)
            if part is not None:
                encoded[part.number] = part
        while next_place in encoded:
            workers.place(next_place, sinks.assembler.offsets(encoded[next_place]))
            next_place += 1
        while (number := sinks.assembler.progress.pieces) in written:
            sinks.take(written.pop(number), under_way.pop(number))


class Sinks:
    """Destinations of finished pieces, in order: output, hashes of the input, check, report.

    Args:
        reached: called with how far the work is: a source, and a byte of it.
        hashes: gets those of files that a worker has read as a whole.
    """

    def __init__(
        self,
        request: TokenizeRequest,
        assembler: Assembler,
        reached: Callable[[int, int], None],
        report: Callable[[Tick], None],
        hashes: dict[str, str],
    ) -> None:
        self.request = request
        self.assembler = assembler
        self.reached = reached
        self.report = report
        self.hashes = hashes
        self.checked = Rechecker(request).compare

    def passed(self, piece: InputPiece) -> None:
        """Count a piece that an earlier run has done."""
        self.reached(piece.place_of(-1), piece.end)
        self.report(Tick(piece.size))

    def take(self, part: EncodedPiece, piece: InputPiece) -> None:
        """Count the next piece, whose tokens are in the output."""
        self.assembler.append(part, piece.source, piece.paths, piece.lost_bytes)
        self.hashes.update(part.hashes)
        self.reached(piece.place_of(-1), piece.end)
        if piece.spooled:
            Path(piece.paths[0]).unlink(missing_ok=True)
        if part.rejects and self.request.on_error == "stop":
            stop(self.request)
        counts = part.outputs
        self.report(Tick(piece.size, sum(c.documents for c in counts), sum(c.tokens for c in counts)))


class Rechecker:
    """Comparison of samples of a fast engine's work with the reference."""

    def __init__(self, request: TokenizeRequest) -> None:
        self.spec = request.spec
        self.engine = request.engine
        self.tokenizer: Any = None

    def compare(self, part: EncodedPiece) -> None:
        """Compare a piece's samples. Raises EngineMismatch at the first difference."""
        for text, ids in part.samples:
            if self.tokenizer is None:
                self.tokenizer = self.spec.load()
            import numpy as np

            expected = np.array(self.tokenizer.encode(text).ids, np.uint32)
            if expected.tobytes() != ids:
                raise EngineMismatch(
                    f"{self.engine} and the reference disagree on a document of the input,"
                    f" which starts with {text[:60]!r}"
                )


def stop(request: TokenizeRequest) -> NoReturn:
    """Give up at the first record that is not a document. Nothing of its piece is saved."""
    with open(request.work_folder / "rejects.jsonl", encoding="utf-8") as rejects:
        text = rejects.readline()
    first = json.loads(text)
    write_text(request.rejects, text)
    raise RecordRefused(
        f"{first['file']}, line {first['line']}: {first['reason']}. {cause(request, first['file'])}"
        "Nothing was written; fix it, or use --on-error skip to skip such records (they are listed in"
        f" {request.rejects})"
    )


def cause(request: TokenizeRequest, path: str) -> str:
    """Return a sentence on what is wrong with a whole file, with a space after it; empty if nothing is."""
    for source, columns in zip(request.sources, request.columns, strict=True):
        if source.path == path:
            found = cause_of(source.path, source.kind, columns)
            return found + ". " if found else ""
    return ""
