"""The parts of the report that are text: headline, tables, events. All words from a run are escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from nemolaunch.observe import extras, summary
from nemolaunch.observe.history import History
from nemolaunch.observe.series import smoothing_window
from nemolaunch.observe.tables import moment, table, title
from nemolaunch.observe.words import size

EXPLAINED = {
    "finished": "reached its last step",
    "running": "still writing",
    "failed": "ended with an error",
    "stopped": "went silent before its last step",
    "not started": "has written nothing yet",
}


def body(histories: list[History], charts: Sequence[dict[str, Any]]) -> str:
    """Everything between the page's head and foot."""
    parts = [_head(histories)]
    if len(histories) == 1:
        parts.append(_figures(histories[0]))
    else:
        parts += [_comparison(histories), _differences(histories)]
    parts.append(_charts(histories, charts))
    for history in histories:
        parts += [_events(history, histories), _checkpoints(history, histories)]
        parts += [extras.evaluations(history, histories), extras.samples(history, histories)]
        parts += [extras.times(history, histories)]
    for history in histories:
        parts += [_plan(history, histories), extras.findings(history, histories)]
        parts.append(extras.environment(history, histories))
    return "\n".join(part for part in parts if part)


def _head(histories: list[History]) -> str:
    if len(histories) > 1:
        return f"<h1>{len(histories)} runs compared</h1>"
    history = histories[0]
    state = summary.state(history)
    model = f"{escape(history.plan.model)} · " if history.plan else ""
    text = f"<h1>{escape(history.name)}</h1>\n<p class='sub'>{model}"
    text += f"<span class='state {state.split()[0]}'>{state}</span>: {EXPLAINED[state]}"
    if history.last_time:
        text += f" · last heard {moment(history.last_time)}"
    text += "</p>"
    failure = summary.failure_text(history)
    if failure and state != "finished":
        text += f"\n<p class='alert'>{escape(failure)}</p>"
    return text


def _figures(history: History) -> str:
    cards = "".join(
        f"<div class='figure'><dt>{escape(f.label)}</dt><dd class='value'>{escape(f.value)}</dd>"
        f"<dd class='note'>{escape(f.note)}</dd></div>\n"
        for f in summary.headline(history)
    )
    return f"<dl class='figures'>\n{cards}</dl>"


def _comparison(histories: list[History]) -> str:
    """Runs as rows, headline figures as columns."""
    tables = [{f.label: f.value for f in summary.headline(history)} for history in histories]
    labels = list(dict.fromkeys(label for table in tables for label in table))
    rows = [
        (
            f"<span class='swatch' style='background:var(--c{i % 10})'></span>{escape(history.name)}",
            summary.state(history),
            *(escape(table.get(label, "–")) for label in labels),
        )
        for i, (history, table) in enumerate(zip(histories, tables, strict=True))
    ]
    return table(("Run", "State", *labels), rows)


def _differences(histories: list[History]) -> str:
    found = summary.differences(histories)
    if not found:
        return "<h2>What differs</h2><p class='sub'>No flag: the runs were asked for the same.</p>"
    rows = [(f"<code>{escape(flag)}</code>", *map(escape, values)) for flag, values in found]
    return "<h2>What differs</h2>" + table(("Flag", *(escape(h.name) for h in histories)), rows)


def _charts(histories: list[History], charts: Sequence[dict[str, Any]]) -> str:
    if not charts:
        return "<h2>Course of training</h2><p class='sub'>No step has been written yet.</p>"
    options = "<option value='step'>steps</option><option value='hours'>hours</option>"
    if all(history.plan for history in histories):
        options += "<option value='tokens'>tokens</option>"
    text = (
        "<div class='controls'><h2>Course of training</h2>"
        f"<label>Along <select id='axis'>{options}</select></label>"
        "<label><input type='checkbox' id='log'> logarithmic loss</label>"
        "<button id='whole' type='button'>Show all</button></div>\n<div class='charts'>"
    )
    for chart in charts:
        unit = f" <span class='unit'>{escape(chart['unit'])}</span>" if chart["unit"] else ""
        kind = "chart wide" if chart.get("wide") else "chart"
        text += f"<section class='{kind}'><h3>{escape(chart['title'])}{unit}</h3>{_caption(chart, histories)}"
        text += f"<div id='chart-{chart['id']}'></div></section>\n"
    return text + "</div>"


def _caption(chart: dict[str, Any], histories: list[History]) -> str:
    if chart["id"] != "loss":
        return ""
    windows = sorted({smoothing_window(h.series["loss"]) for h in histories if "loss" in h.series})
    points = " or ".join(f"{2 * window:,}" for window in windows)
    text = f"Smoothed: weighted average over about {points} values." if windows else ""
    if any(history.marks for history in histories):
        text += " Dashed lines: restarts and other events, listed below."
    return f"<p>{text} Drag to zoom.</p>"


def _events(history: History, histories: list[History]) -> str:
    if not history.marks:
        return ""
    rows = [(f"{mark.step:,}", escape(mark.kind), escape(mark.text)) for mark in history.marks]
    heads = ("Step", "Kind", "What happened")
    return title("Events", history, histories) + table(heads, rows, num_columns=(0,))


def _checkpoints(history: History, histories: list[History]) -> str:
    found = summary.checkpoints(history)
    if not found:
        return ""
    rows = []
    for checkpoint in found:
        series = [history.series.get(key) for key in ("loss", "val_loss")]
        values = [s.at(checkpoint.step) if s else None for s in series]
        rows.append(
            (
                f"{checkpoint.step:,}",
                *("–" if value is None else f"{value:.3f}" for value in values),
                size(checkpoint.size_bytes),
                moment(checkpoint.time),
                f"<code>{escape(checkpoint.path.name)}</code>" + (" (newest)" if checkpoint.last else ""),
            )
        )
    heads = ("After step", "Loss", "Validation loss", "Size", "Written", "Folder")
    return title("Checkpoints", history, histories) + table(heads, rows, num_columns=(0, 1, 2, 3))


def _plan(history: History, histories: list[History]) -> str:
    if not history.plan:
        return ""
    lines = [(escape(label), escape(value)) for label, value in summary.about(history.plan)]
    flags = [
        (f"<code>{escape(flag)}</code>", escape(value), escape(origin))
        for flag, value, origin in summary.flags(history.plan)
    ]
    text = title("Plan", history, histories) + table((), lines)
    text += extras.data(history, histories)
    text += title("Flags", history, histories) + table(("Flag", "Value", "From"), flags)
    if history.plan.left_out:
        items = "".join(f"<li>{escape(sentence)}</li>" for sentence in history.plan.left_out)
        text += title("Left out in the rehearsal", history, histories) + f"<ul>{items}</ul>"
    return text
