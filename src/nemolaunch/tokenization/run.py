"""A complete run: checked, resumed where it stopped, and moved to its final names."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from nemolaunch.data.old_index_caches import remove_old_caches
from nemolaunch.data.unfinished import Pace, lock_name
from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.system import locks
from nemolaunch.system.atomic_files import sync_file, write_json, write_long_json
from nemolaunch.system.collector import paused_collector
from nemolaunch.system.json_files import read_json
from nemolaunch.system.replacement import complete_files, put_files
from nemolaunch.tokenization import manifest
from nemolaunch.tokenization.assemble import Assembler, OutputProgress
from nemolaunch.tokenization.files import grown_path
from nemolaunch.tokenization.flow import Sinks, cause, tokenise
from nemolaunch.tokenization.hashing import Hasher
from nemolaunch.tokenization.index import write_index
from nemolaunch.tokenization.pace import PaceNotes, note
from nemolaunch.tokenization.request import EngineMismatch, RecordRefused, Result, Tick, TokenizeRequest
from nemolaunch.tokenization.units.run import Executor, here, read_hashes, tokenise_in_units
from nemolaunch.tokenization.units.tasks import undone, write_tasks
from nemolaunch.tokenization.units.unit import UNIT_BYTES, divide
from nemolaunch.tokenization.units.work import UnitWork

# Large enough that the start of a piece costs nothing, small enough that its memory is used again for the next one
# instead of being given back, and that what is read is parsed while a cache holds it.
PIECE_BYTES = 4 << 20
MIN_PIECE_BYTES = 1 << 20
# This many for each worker, so that all finish at about the same time.
PIECES_EACH = 32
# How an input is cut into pieces. A run that was cut in another way cannot go on where it stopped
CUT = 2
# In the work folder of a run that was stopped by a record: another input may replace it
REFUSED = "refused.json"


def run(
    request: TokenizeRequest,
    report: Callable[[Tick], None] = lambda _: None,
    distrust: Callable[[EngineMismatch], None] = lambda _: None,
    execute: Executor | None = None,
) -> Result:
    """Tokenise. If a fast engine differs, `distrust` is called and the reference starts over.

    Args:
        execute: does the work, in units; None: workers on this machine, which also finish a run in units.

    Raises NemolaunchError or UsageError with what to do; nothing then has its final name.
    """
    _check_names(request)
    with _held(request):
        try:
            return _run(request, report, execute)
        except EngineMismatch as error:
            distrust(error)
            return _run(replace(request, engine="hf", restart=True), report, execute)
        except RecordRefused:
            _free_for_the_next(request)
            raise
        except OSError as error:
            where = error.filename or request.work_folder
            raise NemolaunchError(
                f"{error.strerror or error} ({where}); finished work is kept,"
                " run the same command again to resume"
            ) from None


def prepare_tasks(request: TokenizeRequest) -> int | None:
    """Begin a run whose units other processes do. Return the number of tasks; None if its outputs exist already.

    Raises the same errors as `run`.
    """
    _check_names(request)
    with _held(request):
        complete_files(request.work_folder)
        if _already_there(request) is not None:
            return None
        begun = begin(request, in_units=True)
        assert begun.work is not None
        progress = OutputProgress.read(request.work_folder / "progress.json", len(request.prefixes))
        units = divide(request, begun.unit_bytes)
        left = undone(begun.work, units[progress.pieces :])
        total = sum(unit.size for unit in units)
        note(request.work_folder, Pace(total, num_units=len(units), done_units=len(units) - len(left)))
        return write_tasks(begun.work, left)


@contextmanager
def _held(request: TokenizeRequest) -> Iterator[None]:
    """Make the output's folder, and hold the lock on the output in it."""
    try:
        request.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--output-dir: cannot create {request.folder}: {error.strerror}") from None
    busy = f"another process is writing {request.folder}/{request.name}; wait for it, or use another --data-prefix"
    with locks.held(request.folder / lock_name(request.name), busy, wait_s=locks.STALE_S + 5.0):
        yield


def _run(request: TokenizeRequest, report: Callable[[Tick], None], execute: Executor | None) -> Result:
    shutil.rmtree(request.trash, ignore_errors=True)
    complete_files(request.work_folder)  # a kill came while its files got their final names
    there = _already_there(request)
    if there is not None:
        return there
    begun = begin(request, in_units=execute is not None)
    progress = OutputProgress.read(request.work_folder / "progress.json", len(request.prefixes))
    report = PaceNotes(request.work_folder, sum(s.size for s in request.sources), report).advance
    report(Tick())
    if begun.work is not None:
        resumed = 0
        if not progress.complete:
            units = divide(request, begun.unit_bytes)
            with Assembler(request.work_folder, progress, request.sources, request.save_bytes) as assembler:
                resumed = tokenise_in_units(begun.work, units, request, assembler, execute or here, report)
                _complete(request, assembler)
        manifests = finish(request, progress, read_hashes(request))
        return Result(request.prefixes, manifests, resumed_pieces=resumed)
    resumed = 0
    hasher = Hasher(request.sources, request.work_folder / "hashes.json")
    if not progress.complete:
        with Assembler(request.work_folder, progress, request.sources, request.save_bytes) as assembler:
            sinks = Sinks(request, assembler, hasher.reached, report, hasher.hashes)
            resumed = tokenise(request, begun.piece_bytes, sinks)
            _complete(request, assembler)
    manifests = finish(request, progress, hasher.result())
    return Result(request.prefixes, manifests, resumed_pieces=resumed)


def _complete(request: TokenizeRequest, assembler: Assembler) -> None:
    _check_documents(request, assembler.progress)
    assembler.save(complete=True)


def _free_for_the_next(request: TokenizeRequest) -> None:
    """After a refusal, keep finished pieces and units for the same input, but let nothing block another."""
    progress = OutputProgress.read(request.work_folder / "progress.json", len(request.prefixes))
    if progress.pieces or any(request.work_folder.glob("units-*/[0-9]*")):
        write_json(request.work_folder / REFUSED, {})
    else:
        shutil.rmtree(request.work_folder, ignore_errors=True)


def _check_documents(request: TokenizeRequest, progress: OutputProgress) -> None:
    """Refuse an input without documents. The share of one task of several may have none."""
    if request.shard is not None or any(totals.documents for totals in progress.outputs):
        return
    shutil.copyfile(request.work_folder / "rejects.jsonl", request.rejects)
    with open(request.rejects, encoding="utf-8") as rejects:
        first = json.loads(rejects.readline() or "null")
    if first is None:
        request.rejects.unlink()
        why = f"all of its {progress.blank:,} lines are blank" if progress.blank else "its files are empty"
        raise RecordRefused(f"there are no documents in the input: {why}. Nothing was written")
    raise RecordRefused(
        f"there are no documents in the input: all {progress.rejects:,} records were skipped, the first being"
        f" {first['file']}, line {first['line']}: {first['reason']}. {cause(request, first['file'])}"
        f"Nothing was written; {request.rejects} lists them"
    )


def _check_names(request: TokenizeRequest) -> None:
    if not request.name or "/" in request.name or request.name.startswith("."):
        raise UsageError(f"--data-prefix {request.name!r} must be a file name, not a path and not hidden")
    if not request.sources and request.shard is None:
        raise UsageError("there are no input files")


def _already_there(request: TokenizeRequest) -> Result | None:
    """Return the finished outputs of the same request, or None. Raises UsageError if the names are taken."""
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
        " use --overwrite to replace it, or another --data-prefix"
    )


@dataclass(frozen=True)
class Begun:
    """A run that has begun: how its input is cut, which stays the same when it is resumed.

    Attributes:
        work: what the units have in common; None if the run is not in units.
    """

    piece_bytes: int
    unit_bytes: int = 0
    work: UnitWork | None = None


@paused_collector()
def begin(request: TokenizeRequest, *, in_units: bool) -> Begun:
    """Create or find the work folder."""
    plan = request.work_folder / "plan.json"
    identity = request.identity()
    if request.restart:
        shutil.rmtree(request.work_folder, ignore_errors=True)
    if plan.exists():
        saved = read_json(plan)
        changed = [k for k in identity if saved["identity"].get(k) != identity[k]]
        if changed and (request.work_folder / REFUSED).exists():
            shutil.rmtree(request.work_folder)
            return begin(request, in_units=in_units)
        if changed:
            raise UsageError(
                f"{request.work_folder} has an unfinished run with other {', '.join(changed)};"
                " use --restart to discard it, or another --data-prefix to keep it"
            )
        if saved.get("cut") != CUT:
            raise UsageError(
                f"{request.work_folder} has an unfinished run of another version of nemolaunch; use --restart to"
                " discard it, or finish it with that version"
            )
        if in_units and not saved.get("units"):
            raise UsageError(
                f"{request.work_folder} has an unfinished run of --executor local, which only that can finish;"
                " use --restart to discard it"
            )
        (request.work_folder / REFUSED).unlink(missing_ok=True)
        return _begun(request, saved)
    shutil.rmtree(request.work_folder, ignore_errors=True)
    request.work_folder.mkdir()
    total = sum(s.size for s in request.sources)
    even = total // (request.workers * PIECES_EACH)
    piece_bytes = request.piece_bytes or max(MIN_PIECE_BYTES, min(PIECE_BYTES, even))
    saved = {"identity": identity, "piece_bytes": piece_bytes, "cut": CUT}
    if in_units:
        # A name of its own: what a unit of an earlier run still writes, somewhere, finds no folder
        saved |= {"unit_bytes": request.unit_bytes or UNIT_BYTES, "units": f"units-{secrets.token_hex(4)}"}
        (request.work_folder / saved["units"]).mkdir()
    write_long_json(plan, saved)
    return _begun(request, saved)


def _begun(request: TokenizeRequest, saved: dict[str, Any]) -> Begun:
    if not saved.get("units"):
        return Begun(saved["piece_bytes"])
    work = UnitWork.of(request, request.work_folder / saved["units"], saved["piece_bytes"])
    return Begun(saved["piece_bytes"], saved["unit_bytes"], work)


@paused_collector()
def finish(
    request: TokenizeRequest, progress: OutputProgress, hashes: dict[str, str]
) -> list[dict[str, Any]]:
    """Write indices and manifests and give everything its final name. After a kill all of it is repeated."""
    folder = request.work_folder
    manifests, files, indices = [], [], []
    for place, prefix in enumerate(request.prefixes):
        made = manifest.make(request, place, progress, hashes)
        manifests.append(made)
        index = grown_path(folder, place, "idx")
        write_index(
            index, request.spec.dtype, grown_path(folder, place, "seq"), grown_path(folder, place, "doc")
        )
        record = grown_path(folder, place, "manifest.json")
        write_long_json(record, made)
        grown = grown_path(folder, place, "bin")
        if grown.exists():
            files.append((grown, manifest.bin_of(prefix)))
        files.append((record, manifest.path_of(prefix)))
        indices.append((index, manifest.idx_of(prefix)))
    rejects = folder / "rejects.jsonl"
    if progress.rejects and rejects.exists():
        sync_file(rejects)
        files.append((rejects, request.rejects))
    # Readers open the .idx first: without it there is no data set, instead of a wrong one
    put_files([*files, *indices], folder)
    if not progress.rejects:
        request.rejects.unlink(missing_ok=True)
    for prefix in request.prefixes:
        remove_old_caches(str(prefix))
    os.replace(folder, request.trash)
    shutil.rmtree(request.trash, ignore_errors=True)
    return manifests
