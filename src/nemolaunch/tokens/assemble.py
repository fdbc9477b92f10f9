"""Joining parts into the output, in order, so that a kill at any moment costs at most the work since the
last save."""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nemolaunch.errors import NemolaunchError
from nemolaunch.tokens.files import append_range, write_json
from nemolaunch.tokens.sources import Source
from nemolaunch.tokens.work import Counts, Part, part_path

# Progress is saved, and the parts it covers are removed, each time so much has been joined.
SAVE_BYTES = 256 << 20
ENDS = ("bin", "seq", "doc")


@dataclass
class Totals:
    """Of one output so far. `sequences` and `documents` are also the lengths of its `.seq` and `.doc`
    files."""

    tokens: int = 0
    sequences: int = 0
    documents: int = 0
    bin_bytes: int = 0
    max_id: int = -1

    def bytes_of(self, end: str) -> int:
        return {"bin": self.bin_bytes, "seq": 4 * self.sequences, "doc": 4 * self.documents}[end]


@dataclass
class Progress:
    """How much is joined: every piece below `pieces`."""

    pieces: int = 0
    outputs: list[Totals] = field(default_factory=list)
    lines: dict[int, int] = field(default_factory=dict)
    blank: int = 0
    rejects: int = 0
    rejects_bytes: int = 0
    complete: bool = False

    @staticmethod
    def read(path: Path, outputs: int) -> Progress:
        """What was saved, or nothing done yet."""
        if not path.exists():
            return Progress(outputs=[Totals() for _ in range(outputs)])
        values = json.loads(path.read_text(encoding="utf-8"))
        values["outputs"] = [Totals(**v) for v in values["outputs"]]
        values["lines"] = {int(k): v for k, v in values["lines"].items()}
        return Progress(**values)


def grown_path(folder: Path, output: int, end: str) -> Path:
    """A file of an output that grows: `bin`, `seq`, `doc`, and at the end `idx`."""
    return folder / f"output{output}.{end}"


class Assembler:
    """Appends parts to `OUTPUT.bin`, `.seq` (tokens of each sequence) and `.doc` (sequences of each
    document)."""

    def __init__(self, folder: Path, progress: Progress, sources: list[Source], save_bytes: int) -> None:
        self.folder = folder
        self.sources = sources
        self.save_bytes = save_bytes
        self.saved = folder / "progress.json"
        self.progress = progress
        self.unsaved_parts: list[int] = []
        self.unsaved_bytes = 0
        self.files: list[dict[str, int]] = []
        self.rejects = -1

    def __enter__(self) -> Assembler:
        for i, totals in enumerate(self.progress.outputs):
            self.files.append(
                {end: _open_at(grown_path(self.folder, i, end), totals.bytes_of(end)) for end in ENDS}
            )
        self.rejects = _open_at(self.folder / "rejects.jsonl", self.progress.rejects_bytes)
        return self

    def __exit__(self, *_: object) -> None:
        for fd in [*(fd for files in self.files for fd in files.values()), self.rejects]:
            os.close(fd)

    def append(self, part: Part, source: int, paths: tuple[str, ...], *, check: bool) -> None:
        """Join the next part. `check` compares its CRC first: for a part left by an earlier run.

        Raises NemolaunchError for a damaged part.
        """
        assert part.number == self.progress.pieces
        for i, counts in enumerate(part.outputs):
            self._append_output(i, part.number, counts, check)
        before = self.progress.lines.get(source, 0)
        for file, line, reason in part.rejects:
            path = self.sources[source].path if len(paths) == 1 else paths[file]
            self._reject(path, line if len(paths) > 1 else before + line, reason)
        self.progress.lines[source] = before + part.lines
        self.progress.blank += part.blank
        self.progress.pieces += 1
        self.unsaved_parts.append(part.number)
        if self.unsaved_bytes >= self.save_bytes:
            self.save()

    def _append_output(self, place: int, number: int, counts: Counts, check: bool) -> None:
        totals, files = self.progress.outputs[place], self.files[place]
        if counts.bin_bytes:
            path = part_path(self.folder, number, f"{place}.bin")
            with open(path, "rb", buffering=0) as part:
                _checked(part.fileno(), path, counts.bin_bytes, counts.bin_crc, check)
                append_range(part.fileno(), files["bin"], counts.bin_bytes)
        if counts.documents:
            path = part_path(self.folder, number, f"{place}.len")
            data = path.read_bytes()
            if len(data) != 4 * (counts.sequences + counts.documents) or (
                check and zlib.crc32(data) != counts.len_crc
            ):
                raise _damaged(path)
            _write(files["seq"], data[: 4 * counts.sequences])
            _write(files["doc"], data[4 * counts.sequences :])
        totals.tokens += counts.tokens
        totals.sequences += counts.sequences
        totals.documents += counts.documents
        totals.bin_bytes += counts.bin_bytes
        totals.max_id = max(totals.max_id, counts.max_id)
        self.unsaved_bytes += counts.bin_bytes

    def _reject(self, path: str, line: int, reason: str) -> None:
        text = json.dumps({"file": path, "line": line, "reason": reason}, ensure_ascii=False) + "\n"
        data = text.encode(errors="backslashreplace")
        _write(self.rejects, data)
        self.progress.rejects += 1
        self.progress.rejects_bytes += len(data)

    def save(self, *, complete: bool = False) -> None:
        """Make all that is joined durable, then remove its parts."""
        for fd in [*(fd for files in self.files for fd in files.values()), self.rejects]:
            os.fsync(fd)
        self.progress.complete = complete
        write_json(self.saved, asdict(self.progress))
        for number in self.unsaved_parts:
            for path in self.folder.glob(f"{number:09d}.*"):
                path.unlink()
        self.unsaved_parts, self.unsaved_bytes = [], 0


def _open_at(path: Path, size: int) -> int:
    """Open for appending after `size` bytes; what lies beyond was not saved and is cut off."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    if os.fstat(fd).st_size < size:
        os.close(fd)
        raise NemolaunchError(
            f"{path} has lost data: its saved size is {size} bytes; start again with --restart"
        )
    os.ftruncate(fd, size)
    os.lseek(fd, size, os.SEEK_SET)
    return fd


def _checked(fd: int, path: Path, size: int, crc: int, check: bool) -> None:
    if os.fstat(fd).st_size != size:
        raise _damaged(path)
    if not check:
        return
    found, at = 0, 0
    while block := os.pread(fd, 1 << 20, at):
        found = zlib.crc32(block, found)
        at += len(block)
    if found != crc:
        raise _damaged(path)


def _damaged(path: Path) -> NemolaunchError:
    return NemolaunchError(f"{path} is damaged; start again with --restart")


def _write(fd: int, data: Any) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
