"""Pieces of HTML that every section of the report uses."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence

_NUM = " class='num'"


def moment(seconds: float) -> str:
    """Unix seconds as local date and time."""
    return datetime.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], num_columns: tuple[int, ...] = ()) -> str:
    """Cells are HTML already; the first of a row is its head."""
    head = "".join(
        f"<th scope='col'{_NUM if i in num_columns else ''}>{cell}</th>" for i, cell in enumerate(heads)
    )
    text = "<div class='scroll'><table>" + (f"<thead><tr>{head}</tr></thead>" if heads else "") + "<tbody>\n"
    for row in rows:
        text += "<tr>" + "".join(_cell(cell, i, num_columns) for i, cell in enumerate(row)) + "</tr>\n"
    return text + "</tbody></table></div>"


def _cell(cell: str, column: int, num_columns: tuple[int, ...]) -> str:
    if column in num_columns:
        return f"<td{_NUM}>{cell}</td>"
    return f"<th scope='row'>{cell}</th>" if column == 0 else f"<td>{cell}</td>"


def pairs(rows: Iterable[tuple[str, str]]) -> str:
    """Names and values side by side, as many columns as there is room for. HTML already."""
    items = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>\n" for name, value in rows)
    return f"<dl class='pairs'>\n{items}</dl>"


def folded(title: str, text: str) -> str:
    """A part that is opened by a click; print shows it open."""
    return f"<details><summary>{title}</summary>{text}</details>"
