"""`nemolaunch data-audit RUN`: show how often each row of a run's sources was fed, and in which mixture."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.views.render import guarded
from nemolaunch.cli.views.units import count

if TYPE_CHECKING:
    from nemolaunch.cli.views.progress import Bar
    from nemolaunch.data.stream_spec import StreamSource
    from nemolaunch.stream.audit import Audit, SourceAudit
    from nemolaunch.stream.manifest import File

# Size of files above which rows are counted in several processes.
PARALLEL_BYTES = 256 << 20


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    p = Parser(
        prog="nemolaunch data-audit",
        example="nemolaunch data-audit runs/pretraining --rows fed.parquet",
        description="Show how often each row of the sources was fed to a run with --data-mode stream, over all "
        "its restarts, and compare that with the files. Exits with 1 if a row was fed twice in an epoch or skipped.",
    )
    add = p.add_argument
    add("run", type=Path, metavar="RUN", help="run folder")
    add(
        "--rows",
        type=Path,
        metavar="FILE",
        help="write how often each row was fed, as .parquet or .csv",
    )
    add(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes that count rows",
    )
    add("--json", action="store_true", help="print one JSON object instead")
    return p


@guarded
def main(argv: list[str] | None = None) -> int:
    """Run the command. Return 1 if rows were fed twice or skipped."""
    options = parser().parse_args(argv)
    from nemolaunch.cli.views.progress import Bar
    from nemolaunch.observe.status import run_of
    from nemolaunch.stream.audit import audit

    run = run_of(options.run)
    with Bar(None, "counting rows") as bar:
        found = audit(run, lambda source, files: _counted(source, files, options.workers, bar))
    if options.rows:
        _write_rows(found, options.rows)
    if options.json:
        print(json.dumps(_values(found), ensure_ascii=False))
    else:
        print("\n".join(_lines(found)))
    for problem in found.problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if found.problems else 0


def _counted(source: StreamSource, files: Sequence[File], num_workers: int, bar: Bar) -> list[Any]:
    """Count the rows of each file, in several processes if the files are large."""
    from nemolaunch.stream.inventory import count_rows
    from nemolaunch.system import worker_pool

    total, done, found = sum(file.size for file in files), 0, []
    if num_workers < 2 or len(files) < 2 or total < PARALLEL_BYTES:
        for file in files:
            found.append(count_rows(source, file))
            done += file.size
            bar.show(done, source.name, total)
        return found
    with worker_pool.pool(min(num_workers, len(files))) as pool:
        for file, counts in zip(files, pool.map(count_rows, [source] * len(files), files), strict=True):
            found.append(counts)
            done += file.size
            bar.show(done, source.name, total)
    return found


def _lines(found: Audit) -> list[str]:
    """Return the audit as lines of text."""
    last = found.sessions[-1]
    sizes = list(dict.fromkeys(session.data_parallel_size for session in found.sessions))
    undone = f"; {found.undone:,} more were undone by resuming from a checkpoint" if found.undone else ""
    number_of_sessions = f"{len(found.sessions)} session{'s' if len(found.sessions) != 1 else ''}"
    lines = [
        f"{number_of_sessions}, data parallel size {', then '.join(map(str, sizes))}, {last.readers} readers",
        f"{count(found.tokens)} tokens in {found.samples:,} samples were fed{undone}",
        "",
    ]
    width = max(len(source.name) for source in found.sources)
    titles = f"{'rows':>12}  {'fed':>12}  {'requested':>9}  {'of rows':>8}  {'of tokens':>9}  {'tokens':>8}"
    lines.append(f"{'':<{width}}  {titles}")
    for s in found.sources:
        lines.append(
            f"{s.name:<{width}}  {s.rows:>12,}  {s.fed:>12,}  {s.requested:>9.2%}  {s.by_rows:>8.2%}  "
            f"{s.by_tokens:>9.2%}  {count(s.tokens):>8}"
        )
    lines += [f"requested shares are of {found.unit}", ""]
    for s in found.sources:
        times = ", ".join(f"{rows:,} rows {_times(n)}" for n, rows in sorted(s.histogram().items()))
        lines.append(f"{s.name}: {times or 'no rows'}{_excluded(s)}")
        for e in s.epochs:
            parts = f"{e.once:,} once, {e.repeated:,} more often, {e.passed_over:,} skipped, {e.to_come:,} to come"
            lines.append(f"  epoch {e.epoch + 1}: {parts}")
    if not found.samples:
        lines += ["", "nothing has been fed yet"]
    elif not found.problems:
        lines += [
            "",
            "no row was fed twice in an epoch, none was skipped, and each continued where it was cut",
        ]
    return lines


def _times(number: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(number, f"{number} times")


def _excluded(source: SourceAudit) -> str:
    parts = [
        f"{number:,} {what}"
        for number, what in (
            (source.held_out, "held out for validation"),
            (source.without_text, "without text"),
            (source.damaged, "damaged groups"),
        )
        if number
    ]
    return f"; {', '.join(parts)}" if parts else ""


def _values(found: Audit) -> dict[str, Any]:
    """Return the audit as plain values for JSON."""
    sources = [
        {
            "name": s.name, "rows": s.rows, "held_out": s.held_out, "without_text": s.without_text,
            "damaged_groups": s.damaged, "fed": s.fed, "tokens": s.tokens, "requested": s.requested,
            "share_of_rows": s.by_rows, "share_of_tokens": s.by_tokens,
            "rows_by_times_fed": {str(times): rows for times, rows in sorted(s.histogram().items())},
            "epochs": [dataclasses.asdict(epoch) for epoch in s.epochs],
        }
        for s in found.sources
    ]  # fmt: skip
    return {
        "sessions": [dataclasses.asdict(session) for session in found.sessions],
        "unit": found.unit,
        "samples": found.samples,
        "tokens": found.tokens,
        "undone_samples": found.undone,
        "sources": sources,
        "problems": found.problems,
    }


def _write_rows(found: Audit, path: Path) -> None:
    """Write every row of every source with how often it was fed, atomically."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    from nemolaunch.errors import UsageError
    from nemolaunch.system.atomic_files import atomic_file

    if path.suffix not in (".parquet", ".csv"):
        raise UsageError(f"--rows {path}: the name must end in .parquet or .csv")
    names = ("source", "file", "group", "row", "times")
    kinds = (pa.string(), pa.string(), pa.int64(), pa.int64(), pa.int64())
    schema = pa.schema(list(zip(names, kinds, strict=True)))
    with atomic_file(path) as file:
        writer: Any = (
            parquet.ParquetWriter(file, schema) if path.suffix == ".parquet" else csv.CSVWriter(file, schema)
        )
        with writer:
            for table in _tables(found, schema):
                writer.write_table(table)


def _tables(found: Audit, schema: Any) -> Iterator[Any]:
    import numpy as np
    import pyarrow as pa

    for source in found.sources:
        inventory, listed = source.inventory, source.listed
        if inventory is None or listed is None:
            continue
        for number, file in enumerate(listed.files):
            for group in range(int(inventory.first_group[number]), int(inventory.first_group[number + 1])):
                start, stop = int(inventory.first_place[group]), int(inventory.first_place[group + 1])
                rows = np.flatnonzero(inventory.exists[start:stop])
                count_ = len(rows)
                columns = [
                    [source.name] * count_, [file.path] * count_,
                    [group - int(inventory.first_group[number])] * count_, rows, source.times[start:stop][rows],
                ]  # fmt: skip
                yield pa.table(columns, schema=schema)
