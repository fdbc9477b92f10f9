"""Bookkeeping of the growing output, in order: a kill loses at most the work since the last save."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nemolaunch.errors import NemolaunchError
from nemolaunch.system.atomic_files import write_json
from nemolaunch.system.json_files import read_json
from nemolaunch.tokenization.files import grown_path, write_all
from nemolaunch.tokenization.output import EncodedPiece, OutputCounts
from nemolaunch.tokenization.sources import InputFile

# Progress is saved after this much output or time.
SAVE_BYTES = 64 << 20
SAVE_EVERY_S = 10.0
ENDS = ("bin", "seq", "doc")


@dataclass
class Totals:
    """Totals of one output; `sequences` and `documents` are also the lengths of its `.seq` and `.doc` files."""

    tokens: int = 0
    sequences: int = 0
    documents: int = 0
    bin_bytes: int = 0
    max_id: int = -1

    def bytes_of(self, end: str) -> int:
        """Return the size of the output's file with this ending."""
        return {"bin": self.bin_bytes, "seq": 4 * self.sequences, "doc": 4 * self.documents}[end]


@dataclass
class OutputProgress:
    """How much of the output is complete: every piece below `pieces`, or every unit of a run in units."""

    pieces: int = 0
    outputs: list[Totals] = field(default_factory=list)
    lines: dict[int, int] = field(default_factory=dict)
    blank: int = 0
    rejects: int = 0
    rejects_bytes: int = 0
    lost_bytes: int = 0
    complete: bool = False

    @staticmethod
    def read(path: Path, outputs: int) -> OutputProgress:
        """Read the saved progress, or return that of a new run."""
        if not path.exists():
            return OutputProgress(outputs=[Totals() for _ in range(outputs)])
        values = read_json(path)
        values["outputs"] = [Totals(**v) for v in values["outputs"]]
        values["lines"] = {int(k): v for k, v in values["lines"].items()}
        return OutputProgress(**values)


class Assembler:
    """Writer of `OUTPUT.seq` (tokens of each sequence) and `.doc` (sequences of each document).

    It also assigns the tokens their place in `OUTPUT.bin`. A thread flushes the files, so that the work never
    waits for the disk.
    """

    def __init__(
        self, folder: Path, progress: OutputProgress, sources: list[InputFile], save_bytes: int
    ) -> None:
        self.folder = folder
        self.sources = sources
        self.save_bytes = save_bytes
        self.saved = folder / "progress.json"
        self.progress = progress
        self.saved_pieces = progress.pieces
        self.ends = [totals.bin_bytes for totals in progress.outputs]
        self.unsaved_bytes = 0
        self.last_save = time.monotonic()
        self.files: list[dict[str, int]] = []
        self.rejects = -1
        self.saver = ThreadPoolExecutor(1)
        self.saving: Future[None] | None = None

    def __enter__(self) -> Assembler:
        for i, totals in enumerate(self.progress.outputs):
            self.files.append(
                {end: _open_at(grown_path(self.folder, i, end), totals.bytes_of(end)) for end in ENDS}
            )
        self.rejects = _open_at(self.folder / "rejects.jsonl", self.progress.rejects_bytes)
        return self

    def __exit__(self, *_: object) -> None:
        self.saver.shutdown(wait=True)
        for fd in self._all_files():
            os.close(fd)

    def _all_files(self) -> list[int]:
        return [*(fd for files in self.files for fd in files.values()), self.rejects]

    def offsets(self, part: EncodedPiece) -> list[int]:
        """Return where in each `.bin` the tokens of the next piece go. Call it once per piece, in order."""
        found = list(self.ends)
        for i, counts in enumerate(part.outputs):
            self.ends[i] += counts.bin_bytes
        return found

    def append(self, part: EncodedPiece, source: int, paths: tuple[str, ...], lost_bytes: int) -> None:
        """Count the next piece, whose tokens are in the `.bin`. Raises OSError if an earlier save failed.

        Args:
            lost_bytes: how much of the file after the piece cannot be read.
        """
        assert part.number == self.progress.pieces
        for i, counts in enumerate(part.outputs):
            write_all(self.files[i]["seq"], [counts.lengths])
            write_all(self.files[i]["doc"], [counts.per_document])
            self.count(i, counts)
        before = self.progress.lines.get(source, 0)
        for file, line, reason in part.rejects:
            path = self.sources[source].path if len(paths) == 1 else paths[file]
            self.reject(path, line if len(paths) > 1 else before + line, reason)
        self.progress.lines[source] = before + part.lines
        self.progress.blank += part.blank
        self.progress.lost_bytes += lost_bytes
        self.next()

    def count(self, output: int, more: OutputCounts | Totals) -> None:
        """Add to the totals of an output what its files have been extended by."""
        totals = self.progress.outputs[output]
        totals.tokens += more.tokens
        totals.sequences += more.sequences
        totals.documents += more.documents
        totals.bin_bytes += more.bin_bytes
        totals.max_id = max(totals.max_id, more.max_id)
        self.unsaved_bytes += more.bin_bytes

    def next(self) -> None:
        """Go on to the next piece or unit, and begin to save if it is time."""
        self.progress.pieces += 1
        if self._is_time() and (self.saving is None or self.saving.done()):
            self._begin_save()

    def _is_time(self) -> bool:
        return self.unsaved_bytes >= self.save_bytes or time.monotonic() - self.last_save > SAVE_EVERY_S

    def reject(self, path: str, line: int, reason: str) -> None:
        """List a record that is not a document."""
        record = {"file": path, "line": line, "reason": reason}
        try:
            data = (json.dumps(record, ensure_ascii=False) + "\n").encode()
        except UnicodeEncodeError:  # a file name that is not UTF-8
            data = json.dumps(record).encode() + b"\n"
        write_all(self.rejects, [data])
        self.progress.rejects += 1
        self.progress.rejects_bytes += len(data)

    def save(self, *, complete: bool = False) -> None:
        """Flush everything to disk. Raises OSError if that fails."""
        self.progress.complete = complete
        self._begin_save()
        self._end_save()

    def _begin_save(self) -> None:
        self._end_save()
        self.unsaved_bytes, self.last_save = 0, time.monotonic()
        self.saving = self.saver.submit(self._save, asdict(self.progress))

    def _end_save(self) -> None:
        if self.saving is not None:
            self.saving.result()
            self.saving = None

    def _save(self, progress: dict[str, Any]) -> None:
        for fd in self._all_files():
            os.fsync(fd)
        write_json(self.saved, progress)
        self.saved_pieces = progress["pieces"]


def _open_at(path: Path, size: int) -> int:
    """Open a file for appending after `size` bytes; anything beyond was not saved and is truncated."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    if os.fstat(fd).st_size < size:
        os.close(fd)
        raise NemolaunchError(
            f"{path} has lost data: its saved size is {size} bytes; start over with --restart"
        )
    os.ftruncate(fd, size)
    os.lseek(fd, size, os.SEEK_SET)
    return fd
