"""The result of a preflight as a table, and what to do about it."""

from __future__ import annotations

import json
from collections.abc import Iterable

from rich.table import Table

from nemolaunch.cli.views.console import SafeConsole
from nemolaunch.preflight.judge import SICK, SLOW
from nemolaunch.preflight.result import Result
from nemolaunch.preflight.rows import NodeRow
from nemolaunch.run.folder import RunDir

COLOURS = {SICK: "red", SLOW: "red"}
NARROWEST = 100  # where the output is no terminal


def as_text(result: Result) -> str:
    """Return all measurements as JSON."""
    return json.dumps(result.values(), indent=1, ensure_ascii=False)


def show(result: Result, run: RunDir, *, on_slurm: bool) -> None:
    """Print a row for each node, what is wrong, and the flags that leave nodes out."""
    console = SafeConsole(highlight=False)
    if not console.is_terminal:
        console = SafeConsole(highlight=False, width=max(NARROWEST, console.width))
    console.print(_table(result))
    if result.measured.all_bytes_per_s:
        console.print(
            f"all-reduce over all ranks: {_rate(result.measured.all_bytes_per_s)} GB/s (bus bandwidth)"
        )
    for trouble in result.troubles:
        colour = COLOURS.get(trouble.level, "yellow")
        console.print(f"[{colour}]{trouble.level}[/] \\[{trouble.code}] {trouble}", soft_wrap=True)
    if result.unfit and on_slurm:
        nodes = ",".join(result.unfit)
        console.print(
            f"leave them out with --exclude {nodes}, or with --exclude-slow in this run folder",
            soft_wrap=True,
        )
    elif not result.unfit:
        console.print("all nodes are fit")
    console.print(f"measurements: {run.preflight_result}", soft_wrap=True)


def _table(result: Result) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("node")
    for name in (
        "ranks",
        "GFLOP/s",
        "GPU MHz",
        "within GB/s",
        "between GB/s",
        "write GB/s",
        "read GB/s",
        "clock s",
    ):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for row in result.measured.nodes:
        table.add_row(*_cells(result, row))
    return table


def _cells(result: Result, row: NodeRow) -> list[str]:
    flops = [r.flops_per_s for r in result.measured.ranks if r.node == row.node and r.flops_per_s is not None]
    clocks = [gpu.clock_mhz for gpu in row.gpus if gpu.clock_mhz is not None]
    levels = [trouble.level for trouble in result.troubles if trouble.node == row.node]
    folder = next((files for files in row.files if files.what == "run folder"), None)
    return [
        row.node,
        str(row.num_ranks),
        f"{min(flops) / 1e9:,.1f}" if flops else "",
        str(min(clocks)) if clocks else "",
        _rate(row.within_bytes_per_s),
        _rate(_most(row.between_bytes_per_s.values())),
        _rate(folder.write_bytes_per_s if folder else None),
        _rate(folder.read_bytes_per_s if folder else None),
        "" if row.clock_ahead_s is None else f"{row.clock_ahead_s:+.3f}",
        f"[{COLOURS.get(levels[0], 'yellow')}]{levels[0]}[/]" if levels else "[green]fit[/]",
    ]


def _most(values: Iterable[float]) -> float | None:
    return max(values, default=None)


def _rate(bytes_per_s: float | None) -> str:
    return f"{bytes_per_s / 1e9:.2f}" if bytes_per_s else ""
