"""A whole run: what was asked for, resumed where it was, joined, and put under its final names."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.tokens import manifest, work
from nemolaunch.tokens.assemble import SAVE_BYTES, Assembler, Progress, grown_path
from nemolaunch.tokens.files import sync_folder, whole, write_json
from nemolaunch.tokens.hashing import Hasher
from nemolaunch.tokens.index import write_index
from nemolaunch.tokens.pieces import Piece, cut
from nemolaunch.tokens.sources import Source
from nemolaunch.tokens.tokenizer import TokenizerSpec
from nemolaunch.workers import CONTEXT, pool

# Large enough that starting a piece costs nothing, small enough that two workers stay far below 1 GiB.
PIECE_BYTES = 16 << 20
MIN_PIECE_BYTES = 1 << 20


class EngineMismatch(NemolaunchError):
    """A fast engine gave other ids than the reference on a document of the input."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to tokenise, into what.

    Attributes:
        folder: where `NAME_KEY_document.bin` and `.idx` go.
        columns: for each source, the column of each key.
        on_error: `stop` at the first record that is no document, or `skip` all of them.
        split: how documents were divided, for the manifest.
        save_bytes: progress is made durable each time so much output is joined.
    """

    sources: list[Source]
    spec: TokenizerSpec
    folder: Path
    name: str
    keys: tuple[str, ...]
    columns: tuple[tuple[str, ...], ...]
    engine: str = "hf"
    workers: int = 1
    on_error: str = "stop"
    validation: float = 0.0
    validation_sources: frozenset[int] = frozenset()
    split: dict[str, Any] = field(default_factory=lambda: {"rule": "at read time"})
    shard: str | None = None
    piece_bytes: int | None = None
    save_bytes: int = SAVE_BYTES
    overwrite: bool = False
    restart: bool = False

    @property
    def work_folder(self) -> Path:
        return self.folder / f"{self.name}.unfinished"

    @property
    def rubbish(self) -> Path:
        """What the work folder is called while it is being removed."""
        return self.folder / f".{self.name}.removed"

    @property
    def prefixes(self) -> list[Path]:
        """Where each output goes: keys, and within each key training before validation."""
        splits = ["", "_validation"] if self.validation or self.validation_sources else [""]
        return [self.folder / f"{self.name}{split}_{key}_document" for key in self.keys for split in splits]

    @property
    def rejects(self) -> Path:
        return self.folder / f"{self.name}_rejects.jsonl"

    def identity(self) -> dict[str, Any]:
        """All that decides the bytes of the output. A run is resumed only for the same."""
        return {
            "format": 1,
            "tokenizer": self.spec.digest,
            "eod_id": self.spec.eod_id,
            "keys": list(self.keys),
            "columns": [list(c) for c in self.columns],
            "sources": [[os.path.abspath(s.path), s.kind, s.size, s.modified] for s in self.sources],
            "split": self.split,
            "validation": self.validation,
            "validation_sources": sorted(self.validation_sources),
            "shard": self.shard,
        }


@dataclass
class Tick:
    """Progress since the last one: input bytes, documents, tokens."""

    bytes: int = 0
    documents: int = 0
    tokens: int = 0


@dataclass
class Result:
    """What a run gave. `prefixes` are the outputs, without `.bin`."""

    prefixes: list[Path]
    manifests: list[dict[str, Any]] = field(default_factory=list)
    already_there: bool = False
    resumed_pieces: int = 0


def run(
    request: Request,
    report: Callable[[Tick], None] = lambda _: None,
    distrust: Callable[[EngineMismatch], None] = lambda _: None,
) -> Result:
    """Tokenise. Should a fast engine turn out to differ, `distrust` is told and the reference does all of
    it again.

    Raises NemolaunchError or UsageError with what to do; nothing is then under a final name.
    """
    _check_names(request)
    request.folder.mkdir(parents=True, exist_ok=True)
    with _alone(request):
        try:
            return _run(request, report)
        except EngineMismatch as error:
            distrust(error)
            return _run(replace(request, engine="hf", restart=True), report)
        except OSError as error:
            where = error.filename or request.work_folder
            raise NemolaunchError(
                f"{error.strerror or error} ({where}); what is done is kept,"
                " run the same command again to go on"
            ) from None


def _run(request: Request, report: Callable[[Tick], None]) -> Result:
    shutil.rmtree(request.rubbish, ignore_errors=True)
    there = _already_there(request)
    if there is not None:
        return there
    piece_bytes = _begin(request)
    progress = Progress.read(request.work_folder / "progress.json", len(request.prefixes))
    resumed = 0
    hasher = Hasher(request.sources, request.work_folder / "hashes.json")
    if not progress.complete:
        with Assembler(request.work_folder, progress, request.sources, request.save_bytes) as assembler:
            resumed = _tokenise(request, piece_bytes, assembler, report)
            assembler.save(complete=True)
    manifests = _finish(request, progress, hasher.result())
    return Result(request.prefixes, manifests, resumed_pieces=resumed)


def _check_names(request: Request) -> None:
    if not request.name or "/" in request.name or request.name.startswith("."):
        raise UsageError(f"--data-prefix {request.name!r} must be a file name, not a path and not hidden")
    if not request.sources and request.shard is None:
        raise UsageError("there are no input files")


@contextmanager
def _alone(request: Request) -> Iterator[None]:
    """Hold the lock of this output; it goes away with the process that holds it, however that ends."""
    path = request.folder / f".{request.name}.lock"
    while True:
        file = open(path, "w")  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise NemolaunchError(
                f"another process is writing {request.folder}/{request.name}; wait for it,"
                " or give another --data-prefix"
            ) from None
        if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            break
        # Its holder removed it between our two calls: what we locked is no longer the file of that name.
        file.close()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def _already_there(request: Request) -> Result | None:
    """The finished outputs of the same request, or None. UsageError if something else bears their names."""
    if request.work_folder.exists() and not request.restart:
        return None
    existing = [
        p
        for prefix in request.prefixes
        for p in (manifest.bin_of(prefix), manifest.idx_of(prefix))
        if p.exists()
    ]
    if not existing or request.overwrite:
        return None
    found = [manifest.read(prefix) for prefix in request.prefixes]
    if all(m is not None and m.get("identity") == manifest.identity_hash(request.identity()) for m in found):
        return Result(request.prefixes, [m for m in found if m], already_there=True)
    raise UsageError(
        f"{existing[0]} exists and was not made from this input with this tokenizer;"
        " give --overwrite to replace it, or another --data-prefix"
    )


def _begin(request: Request) -> int:
    """Make or find the work folder. Returns the piece size, which a resumed run keeps."""
    plan = request.work_folder / "plan.json"
    identity = request.identity()
    if request.restart:
        shutil.rmtree(request.work_folder, ignore_errors=True)
    if plan.exists():
        saved = json.loads(plan.read_text(encoding="utf-8"))
        changed = [k for k in identity if saved["identity"].get(k) != identity[k]]
        if changed:
            raise UsageError(
                f"{request.work_folder} holds an unfinished run with other {', '.join(changed)};"
                " give --restart to throw it away, or another --data-prefix to keep it"
            )
        return int(saved["piece_bytes"])
    shutil.rmtree(request.work_folder, ignore_errors=True)
    request.work_folder.mkdir()
    total = sum(s.size for s in request.sources)
    even = total // (request.workers * 8)
    piece_bytes = request.piece_bytes or max(MIN_PIECE_BYTES, min(PIECE_BYTES, even))
    write_json(plan, {"identity": identity, "piece_bytes": piece_bytes})
    return piece_bytes


def _tokenise(
    request: Request, piece_bytes: int, assembler: Assembler, report: Callable[[Tick], None]
) -> int:
    """Run every piece that is not done yet, and join all of them in order. Returns how many were done
    already."""
    folder = request.work_folder
    joined = assembler.progress.pieces
    left = {int(p.name.split(".")[0]) for p in folder.glob("[0-9]*.json")}
    done = {n for n in left if n >= joined} | set(range(joined))
    pieces = cut(request.sources, piece_bytes, folder / "spool", done)
    checker = Rechecker(request)
    waiting: dict[int, tuple[Piece, Future[work.Part] | None]] = {}
    resumed = 0
    with _pool(request, folder) as executor:
        exhausted = False
        while waiting or not exhausted:
            while not exhausted and len(waiting) < 4 * request.workers:
                piece = next(pieces, None)
                if piece is None:
                    exhausted = True
                elif piece.number < joined:
                    resumed += 1
                    report(Tick(piece.size))
                elif piece.number in done:
                    resumed += 1
                    waiting[piece.number] = (piece, None)
                else:
                    waiting[piece.number] = (piece, executor.submit(work.do, piece))
            _join_ready(request, waiting, assembler, checker, report)
            running = [f for _, f in waiting.values() if f is not None]
            if running:
                wait(running, return_when=FIRST_COMPLETED)
    return resumed


def _pool(request: Request, folder: Path) -> AbstractContextManager[ProcessPoolExecutor]:
    # each worker is to use one core
    os.environ.setdefault("RAYON_NUM_THREADS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    setup = work.Setup(
        request.spec,
        request.engine,
        str(folder),
        request.keys,
        request.columns,
        request.validation,
        request.validation_sources,
    )
    return pool(request.workers, work.start, (setup, CONTEXT.Lock()))


def _join_ready(
    request: Request,
    waiting: dict[int, tuple[Piece, Future[work.Part] | None]],
    assembler: Assembler,
    checker: Rechecker,
    report: Callable[[Tick], None],
) -> None:
    """Join the parts that come next and are there."""
    while (number := assembler.progress.pieces) in waiting:
        piece, future = waiting[number]
        if future is None:
            text = work.part_path(request.work_folder, number, "json").read_text(encoding="utf-8")
            part = work.Part.from_json(text)
        elif future.done():
            part = _result(request, future)
            checker.compare(part)
        else:
            return
        del waiting[number]
        assembler.append(part, piece.source, piece.paths, check=future is None)
        if piece.spooled:
            Path(piece.paths[0]).unlink(missing_ok=True)
        if part.rejects and request.on_error == "stop":
            _stop(request)
        counts = part.outputs
        report(Tick(piece.size, sum(c.documents for c in counts), sum(c.tokens for c in counts)))


def _result(request: Request, future: Future[work.Part]) -> work.Part:
    try:
        return future.result()
    except RuntimeError as error:
        if request.engine != "hf" and not isinstance(error, BrokenProcessPool):
            raise EngineMismatch(f"{request.engine} failed: {error}") from None
        raise


def _stop(request: Request) -> None:
    """Give up at the first record that is no document. Nothing is saved of the part it is in."""
    with open(request.work_folder / "rejects.jsonl", encoding="utf-8") as file:
        text = file.readline()
    first = json.loads(text)
    _write_rejects(request, text)
    raise NemolaunchError(
        f"{first['file']}, line {first['line']}: {first['reason']}. Nothing was written; mend it and give"
        f" --restart, or give --on-error skip to leave such records out (they are listed"
        f" in {request.rejects})"
    )


def _write_rejects(request: Request, text: str) -> None:
    with whole(request.rejects) as file:
        file.write(text.encode())


class Rechecker:
    """Compares samples of a fast engine's work with the reference."""

    def __init__(self, request: Request) -> None:
        self.spec = request.spec
        self.engine = request.engine
        self.tokenizer: Any = None
        self.checked = 0

    def compare(self, part: work.Part) -> None:
        """Raises EngineMismatch at the first difference."""
        for text, ids in part.samples:
            if self.tokenizer is None:
                self.tokenizer = self.spec.load()
            import numpy as np

            expected = np.array(self.tokenizer.encode(text).ids, np.uint32)
            if expected.tobytes() != ids:
                raise EngineMismatch(
                    f"{self.engine} and the reference disagree on a document of the input,"
                    f" beginning {text[:60]!r}"
                )
            self.checked += 1


def _finish(request: Request, progress: Progress, hashes: dict[str, str]) -> list[dict[str, Any]]:
    """Write indices and manifests and give everything its final name. After a kill it is simply done
    again."""
    folder = request.work_folder
    manifests = []
    for place, prefix in enumerate(request.prefixes):
        made = manifest.make(request, place, progress, hashes)
        manifests.append(made)
        index = grown_path(folder, place, "idx")
        write_index(
            index, request.spec.dtype, grown_path(folder, place, "seq"), grown_path(folder, place, "doc")
        )
        grown = grown_path(folder, place, "bin")
        if grown.exists():
            # Readers open the .idx first: without it there is no data set, rather than a wrong one.
            manifest.idx_of(prefix).unlink(missing_ok=True)
            os.replace(grown, manifest.bin_of(prefix))
        record = grown_path(folder, place, "manifest.json")
        write_json(record, made)
        os.replace(record, manifest.path_of(prefix))
        os.replace(index, manifest.idx_of(prefix))
    rejects = folder / "rejects.jsonl"
    if not progress.rejects:
        request.rejects.unlink(missing_ok=True)
    elif rejects.exists():
        os.replace(rejects, request.rejects)
    sync_folder(request.folder)
    os.replace(folder, request.rubbish)
    shutil.rmtree(request.rubbish, ignore_errors=True)
    return manifests
