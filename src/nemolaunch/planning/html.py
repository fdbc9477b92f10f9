"""A plan as a table in HTML, for notebooks."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from nemolaunch.estimate import Estimate
from nemolaunch.findings import Finding

GIB = 2**30
COLOURS = {"error": "#c62828", "warning": "#b26a00", "note": "inherit"}


def table(rows: Iterable[tuple[str, str]], findings: Iterable[Finding]) -> str:
    """Return (name, value) rows as a table, followed by the findings as a list. All text is escaped."""
    cells = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th>'
        f'<td style="text-align:left">{escape(value)}</td></tr>'
        for name, value in rows
    )
    items = "".join(
        f'<li style="color:{COLOURS[finding.severity.value]}">{escape(str(finding))}</li>'
        for finding in findings
    )
    return f"<table>{cells}</table>" + (f"<ul>{items}</ul>" if items else "")


def estimate_rows(estimate: Estimate) -> list[tuple[str, str]]:
    """Return the estimate in a few rows: parameters, and memory of the fullest GPU."""
    memory = estimate.memory.total / GIB
    there = estimate.gpu.memory_bytes / GIB
    rows = [
        ("Parameters", f"{estimate.parameters:,}"),
        ("Memory", f"{memory:,.1f} GiB of {there:,.1f} GiB on the fullest {estimate.gpu.name}"),
    ]
    if estimate.rehearsal is not None:
        rows.append(("Memory here", f"{estimate.rehearsal.total / GIB:,.1f} GiB for each CPU process"))
    return rows
