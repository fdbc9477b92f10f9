"""What holds the parts of the report together: headline, comparison, charts, and the order of the sections."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from nemolaunch.observe.report import summary
from nemolaunch.observe.report.run_page import RunPage
from nemolaunch.observe.report.tables import folded, table

# the page's parts after the charts: key, title
PARTS = (
    ("events", "Events"),
    ("checkpoints", "Checkpoints"),
    ("evaluation", "Evaluation"),
    ("samples", "Samples"),
    ("time", "Time"),
    ("traces", "Traces"),
    ("data", "Data"),
    ("plan", "Plan"),
    ("findings", "Findings"),
    ("environment", "Environment"),
)

OPEN = ("events", "evaluation")  # of several runs as well


def body(pages: Sequence[RunPage], charts: Sequence[dict[str, Any]]) -> str:
    """Everything between the page's head and foot."""
    several = len(pages) > 1
    if several:
        top = f"<header><p class='eyebrow'>Run report</p><h1>{len(pages)} runs compared</h1></header>"
        opening = _comparison(pages) + _differences(pages)
    else:
        top, opening = pages[0].head, _figures(pages[0].figures)
    parts = [(key, title, _part(pages, key)) for key, title in PARTS]
    shown = [(key, title, text) for key, title, text in parts if text]
    sections = "\n".join(
        f"<section class='part' id='{key}'><h2>{title}</h2>\n{text}</section>" for key, title, text in shown
    )
    links = [("charts", "Charts"), *((key, title) for key, title, _ in shown)]
    nav = "".join(f"<a href='#{key}'>{title}</a>" for key, title in links)
    nav = f"<nav aria-label='Sections'>{nav}</nav>"
    return "\n".join([top, nav, opening, _charts(pages, charts), sections])


def _part(pages: Sequence[RunPage], key: str) -> str:
    """A part of each run; of several runs, what is long is folded."""
    if len(pages) == 1:
        return pages[0].parts.get(key, "")
    text = ""
    for i, page in enumerate(pages):
        part = page.parts.get(key)
        if part:
            name = _swatch(i) + escape(page.name)
            text += folded(name, part) if key not in OPEN else f"<h3 class='of'>{name}</h3>{part}"
    return text


def _swatch(run: int) -> str:
    return f"<span class='swatch' style='background:var(--c{run % 10})'></span>"


def _figures(figures: Sequence[summary.Figure]) -> str:
    cards = "".join(
        f"<div class='figure'><dt>{escape(f.label)}</dt><dd class='value'>{escape(f.value)}</dd>"
        f"<dd class='note'>{escape(f.note)}</dd></div>\n"
        for f in figures
    )
    columns = next((c for c in (4, 5, 3) if -len(figures) % c < 2), 4)
    return f"<dl class='figures' style='--columns:{columns}'>\n{cards}</dl>"


def _comparison(pages: Sequence[RunPage]) -> str:
    """Runs as rows, headline figures as columns."""
    tables = [{f.label: f.brief or f.value for f in page.figures if f.compared} for page in pages]
    labels = list(dict.fromkeys(label for row in tables for label in row))
    rows = [
        (
            f"{_swatch(i)}{escape(page.name)}",
            f"<span class='state {page.state.split()[0]}'>{page.state}</span>",
            *(escape(row.get(label, "–")) for label in labels),
        )
        for i, (page, row) in enumerate(zip(pages, tables, strict=True))
    ]
    columns = tuple(range(2, len(labels) + 2))
    return "<div class='part tight'>" + table(("Run", "State", *labels), rows, num_columns=columns) + "</div>"


def _differences(pages: Sequence[RunPage]) -> str:
    found = summary.differences([page.plan for page in pages])
    if not found:
        return (
            "<section class='part'><h2>What differs</h2>"
            "<p class='sub'>No flag: the runs were asked for the same.</p></section>"
        )
    rows = [(f"<code>{escape(flag)}</code>", *map(escape, values)) for flag, values in found]
    heads = ("Flag", *(_swatch(i) + escape(page.name) for i, page in enumerate(pages)))
    return "<section class='part'><h2>What differs</h2>" + table(heads, rows) + "</section>"


def _charts(pages: Sequence[RunPage], charts: Sequence[dict[str, Any]]) -> str:
    title = "<section class='part' id='charts'><div class='controls'><h2>Course of training</h2>"
    if not charts:
        return title + "</div><p class='sub'>No step has been written yet.</p></section>"
    options = "<option value='step'>steps</option><option value='hours'>hours in training</option>"
    if all(page.plan for page in pages):
        options += "<option value='tokens'>tokens</option>"
    text = (
        f"{title}<label>Along <select id='axis'>{options}</select></label>"
        "<label><input type='checkbox' id='log'> logarithmic loss</label>"
        "<button id='whole' type='button' disabled>Show all</button></div>\n"
    )
    if len(pages) > 1:
        chips = "".join(
            f"<button type='button' aria-pressed='true' data-run='{i}'>{_swatch(i)}{escape(page.name)}</button>"
            for i, page in enumerate(pages)
        )
        text += f"<div class='runs' role='group' aria-label='Runs'>{chips}</div>\n"
    text += "<noscript><p class='alert'>The charts need JavaScript.</p></noscript><div class='charts'>"
    for chart in charts:
        unit = f" <span class='unit'>{escape(chart['unit'])}</span>" if chart["unit"] else ""
        kind = "chart wide" if chart.get("wide") else "chart"
        text += (
            f"<section class='{kind}'><header><h3>{escape(chart['title'])}{unit}</h3>"
            f"<div class='legend' role='group' aria-label='Lines'></div></header>"
            f"{_caption(chart, pages)}<div class='plot' id='chart-{chart['id']}'></div></section>\n"
        )
    return text + "</div></section>"


def _caption(chart: dict[str, Any], pages: Sequence[RunPage]) -> str:
    if chart["id"] != "loss":
        return ""
    windows = sorted({page.data["smoothing"] for page in pages if page.data["smoothing"]})
    points = " or ".join(f"{2 * window:,}" for window in windows)
    text = f"Smoothed: weighted average over up to about {points} values." if windows else ""
    if any(page.data["marks"] for page in pages):
        text += " Dashed lines: restarts and other events."
    return f"<p>{text} Drag to zoom, double-click to zoom out.</p>"
