"""The work on one unit: a small run of its own, whose folder gets its final name when it is complete.

Any number of processes may work on the same unit at once, such as one that is believed dead: each has a folder of its
own, the first to finish keeps the name, and all write the same bytes.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from nemolaunch.errors import NemolaunchError
from nemolaunch.system import remote
from nemolaunch.system.atomic_files import move, write_json
from nemolaunch.tokenization.assemble import Assembler, OutputProgress
from nemolaunch.tokenization.flow import Sinks, Workers, distribute, setup_of
from nemolaunch.tokenization.hashing import hash_of
from nemolaunch.tokenization.pieces import cut
from nemolaunch.tokenization.request import EngineMismatch, Tick, TokenizeRequest
from nemolaunch.tokenization.setup import WorkerSetup
from nemolaunch.tokenization.units.unit import Unit

PROGRESS, HASHES, REJECTS = "progress.json", "hashes.json", "rejects.jsonl"
# What a rename says whose target exists already
EXISTS = (errno.EEXIST, errno.ENOTEMPTY)


class FilesDiffer(NemolaunchError):
    """Input or work folder that this machine does not see, or not as the machine that started the run does."""


@dataclass(frozen=True)
class UnitWork:
    """Everything that the units of a run have in common.

    Attributes:
        request: the run, without its sources.
        folder: where the results of the units go; made by the run, and on a file system that all machines share.
    """

    request: TokenizeRequest
    folder: str
    piece_bytes: int

    @staticmethod
    def of(request: TokenizeRequest, folder: Path, piece_bytes: int) -> UnitWork:
        """Return the work of a run."""
        common = replace(request, sources=[], columns=(), folder=request.folder.absolute())
        return UnitWork(common, str(folder.absolute()), piece_bytes)

    def request_of(self, unit: Unit) -> TokenizeRequest:
        """Return one unit as a request of its own. Bad records are listed: the run decides what that means."""
        chosen = self.request.validation_sources
        if chosen is not None:
            chosen = frozenset(i for i, place in enumerate(unit.places) if place in chosen)
        return replace(
            self.request,
            sources=list(unit.sources),
            columns=unit.columns,
            validation_sources=chosen,
            on_error="skip",
        )


def result_of(work: UnitWork, unit: Unit) -> Path:
    """Return the folder with the result of a unit, which exists if the unit is done."""
    return Path(work.folder, unit.name)


def do_unit(
    work: UnitWork,
    unit: Unit,
    workers: Callable[[WorkerSetup], AbstractContextManager[Workers]],
    report: Callable[[Tick], None] = lambda _: None,
) -> int:
    """Tokenise a unit, unless that is done. Return how many of its records are not documents.

    Raises:
        EngineMismatch: a fast engine differs from the reference, or fails.
        FilesDiffer: this machine does not see the same files.
        OSError: the result cannot be written.
    """
    result = result_of(work, unit)
    _check_files(work, unit)
    if result.exists():
        return OutputProgress.read(result / PROGRESS, len(work.request.prefixes)).rejects
    attempt = result.with_name(f".{unit.name}.{secrets.token_hex(8)}")
    attempt.mkdir()
    try:
        known: dict[str, str] = {}
        rejects = 0 if unit.only_hash else _tokenise(work, unit, attempt, workers, report, known)
        paths = [] if unit.is_part else [source.path for source in unit.sources]
        whole = {path: known.get(path) or hash_of(path) for path in paths}
        write_json(attempt / HASHES, whole)
        try:
            move(attempt, result)
        except OSError as error:
            if error.errno not in EXISTS:
                raise
        return rejects
    finally:
        shutil.rmtree(attempt, ignore_errors=True)


def _tokenise(
    work: UnitWork,
    unit: Unit,
    folder: Path,
    workers: Callable[[WorkerSetup], AbstractContextManager[Workers]],
    report: Callable[[Tick], None],
    hashes: dict[str, str],
) -> int:
    request = work.request_of(unit)
    progress = OutputProgress.read(folder / PROGRESS, len(request.prefixes))
    pieces = cut(request.sources, work.piece_bytes, folder / "spool", 0, unit.ranges)
    try:
        with Assembler(folder, progress, request.sources, request.save_bytes) as assembler:
            sinks = Sinks(request, assembler, lambda source, byte: None, report, hashes)
            with workers(setup_of(request, folder)) as crowd:
                distribute(pieces, crowd, sinks)
            assembler.save(complete=True)
    except RuntimeError as error:
        if request.engine != "hf":
            raise EngineMismatch(f"{request.engine} failed: {error}") from None
        raise
    shutil.rmtree(folder / "spool", ignore_errors=True)
    return progress.rejects


def _seen(path: str) -> tuple[int, int]:
    """Return the size and the time of change of a file, or the version of an object."""
    if remote.is_url(path):
        found = remote.stat(path)
        return found.size, found.version
    here = os.stat(path)
    return here.st_size, here.st_mtime_ns


def _check_files(work: UnitWork, unit: Unit) -> None:
    """Raise FilesDiffer unless this machine sees the work folder and the same input."""
    here = os.uname().nodename
    if not Path(work.folder).is_dir():
        raise FilesDiffer(
            f"{here} does not see {work.folder}: all machines need the same paths, on a file system that they share"
        )
    for source in unit.sources:
        try:
            found = _seen(source.path)
        except OSError as error:
            raise FilesDiffer(
                f"{here} cannot read {source.path} ({error.strerror}): all machines need the same paths, on a file"
                " system that they share, and the same access to object stores"
            ) from None
        if found != (source.size, source.modified):
            raise FilesDiffer(
                f"{source.path} on {here} has {found[0]:,} bytes, and had {source.size:,} when the run began, or"
                " another time of change: the input must stay the same, and all machines must see the same files"
            )
