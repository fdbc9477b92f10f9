"""A run in units: whoever does them, their results are joined in order as they arrive."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nemolaunch.tokenization.assemble import Assembler, OutputProgress
from nemolaunch.tokenization.flow import stop
from nemolaunch.tokenization.hashing import hash_of
from nemolaunch.tokenization.request import Tick, TokenizeRequest
from nemolaunch.tokenization.units.join import join
from nemolaunch.tokenization.units.unit import Unit
from nemolaunch.tokenization.units.work import PROGRESS, UnitWork, do_unit, result_of
from nemolaunch.tokenization.worker_pool import worker_pool

if TYPE_CHECKING:
    from collections.abc import Generator

    from nemolaunch.tokenization.flow import Workers
    from nemolaunch.tokenization.setup import WorkerSetup


@dataclass(frozen=True)
class Done:
    """A unit that is done, with the documents and tokens in it, and the records that are not documents."""

    unit: Unit
    documents: int = 0
    tokens: int = 0
    rejects: int = 0


# Does the units, in any order, and yields each when it is done. Closing it stops what is under way.
Executor = Callable[[UnitWork, list[Unit]], "Generator[Done, None, None]"]


def tokenise_in_units(
    work: UnitWork,
    units: list[Unit],
    request: TokenizeRequest,
    assembler: Assembler,
    execute: Executor,
    report: Callable[[Tick], None],
) -> int:
    """Have the units done that are not, and join all. Return how many were done before.

    Raises RecordRefused for a record that is not a document, EngineMismatch, NemolaunchError or OSError.
    """
    progress = assembler.progress
    if progress.rejects and request.on_error == "stop":
        stop(request)
    left = [unit for unit in units[progress.pieces :] if not result_of(work, unit).exists()]
    report(Tick(sum(unit.size for unit in units) - sum(unit.size for unit in left)))
    joiner = _Joiner(work, units, request, assembler)
    joiner.join()
    with closing(execute(work, left)) as finished:
        for done in finished:
            report(Tick(done.unit.size, done.documents, done.tokens))
            joiner.join()
    joiner.check()
    return len(units) - len(left)


class _Joiner:
    """Joins results to the output, and removes those that the saved output includes."""

    def __init__(
        self, work: UnitWork, units: list[Unit], request: TokenizeRequest, assembler: Assembler
    ) -> None:
        self.work, self.units, self.request, self.assembler = work, units, request, assembler
        self.removed = assembler.progress.pieces

    def join(self) -> None:
        """Join all that can be joined by now."""
        while (unit := self._next()) is not None and result_of(self.work, unit).exists():
            hashes = join(self.assembler, unit, result_of(self.work, unit))
            if hashes:
                with open(hashes_of(self.request), "a", encoding="utf-8") as file:
                    file.write(json.dumps(hashes) + "\n")
            if self.assembler.progress.rejects and self.request.on_error == "stop":
                stop(self.request)
        while self.removed < self.assembler.saved_pieces:
            self._remove(self.units[self.removed])
            self.removed += 1

    def _next(self) -> Unit | None:
        number = self.assembler.progress.pieces
        return self.units[number] if number < len(self.units) else None

    def _remove(self, unit: Unit) -> None:
        shutil.rmtree(result_of(self.work, unit), ignore_errors=True)

    def check(self) -> None:
        """Raise FileNotFoundError if the result of a unit is missing."""
        if (unit := self._next()) is not None:
            raise FileNotFoundError(2, "the result of a unit is gone", str(result_of(self.work, unit)))


def hashes_of(request: TokenizeRequest) -> Path:
    """Return the file with the hashes of the files whose units have been joined, in JSON objects."""
    return request.work_folder / "unit-hashes.jsonl"


def read_hashes(request: TokenizeRequest) -> dict[str, str]:
    """Return the hashes of all sources; those that a power failure has lost are computed."""
    found: dict[str, str] = {}
    with open(hashes_of(request), "a+", encoding="utf-8", errors="replace") as file:
        file.seek(0)
        for line in file:
            try:
                found |= json.loads(line)
            except ValueError:  # cut off
                continue
    return {source.path: found.get(source.path) or hash_of(source.path) for source in request.sources}


def counted(work: UnitWork, unit: Unit, rejects: int) -> Done:
    """Return what is in the result of a unit."""
    if unit.only_hash:
        return Done(unit)
    made = OutputProgress.read(result_of(work, unit) / PROGRESS, 0).outputs
    return Done(unit, sum(o.documents for o in made), sum(o.tokens for o in made), rejects)


def here(work: UnitWork, units: list[Unit]) -> Generator[Done, None, None]:
    """Do units on this machine, one after another, each with all workers of the request."""

    @contextmanager
    def workers(setup: WorkerSetup) -> Iterator[Workers]:
        with worker_pool(work.request.workers, setup) as found:
            yield found

    for unit in units:
        yield counted(work, unit, do_unit(work, unit, workers))
