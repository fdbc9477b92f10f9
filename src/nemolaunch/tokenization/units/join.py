"""Joining the results of units to the output, in order."""

from __future__ import annotations

import json
import os
from pathlib import Path

from nemolaunch.system.json_files import read_json
from nemolaunch.tokenization.assemble import ENDS, Assembler, OutputProgress
from nemolaunch.tokenization.files import append_range, grown_path
from nemolaunch.tokenization.units.unit import Unit
from nemolaunch.tokenization.units.work import HASHES, PROGRESS, REJECTS


def join(assembler: Assembler, unit: Unit, result: Path) -> dict[str, str]:
    """Append the result of the next unit to the output. Return the hashes of its whole files, by their names."""
    assert unit.number == assembler.progress.pieces
    names = {
        source.path: assembler.sources[place].path
        for source, place in zip(unit.sources, unit.places, strict=True)
    }
    if not unit.only_hash:
        made = OutputProgress.read(result / PROGRESS, len(assembler.progress.outputs))
        for i, totals in enumerate(made.outputs):
            for end in ENDS:
                with open(grown_path(result, i, end), "rb", buffering=0) as part:
                    append_range(part.fileno(), assembler.files[i][end], totals.bytes_of(end))
            assembler.count(i, totals)
        _join_rejects(assembler, unit, result, names)
        for i, place in enumerate(unit.places):
            assembler.progress.lines[place] = assembler.progress.lines.get(place, 0) + made.lines.get(i, 0)
        assembler.progress.blank += made.blank
        assembler.progress.lost_bytes += made.lost_bytes
    assembler.next()
    return {names[path]: digest for path, digest in read_json(result / HASHES).items()}


def _join_rejects(assembler: Assembler, unit: Unit, result: Path, names: dict[str, str]) -> None:
    """List the records that are not documents; lines of a part of a file are counted from the start of the file."""
    before = assembler.progress.lines.get(unit.places[0], 0) if unit.is_part else 0
    if not os.path.getsize(result / REJECTS):
        return
    with open(result / REJECTS, encoding="utf-8") as rejects:
        for text in rejects:
            found = json.loads(text)
            assembler.reject(names[found["file"]], before + found["line"], found["reason"])
