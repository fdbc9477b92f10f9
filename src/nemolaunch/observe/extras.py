"""Sections of the report that stand only where a run has something to say about them."""

from __future__ import annotations

from html import escape
from typing import Any

from nemolaunch.observe import details
from nemolaunch.observe.history import History, evaluation_figures
from nemolaunch.observe.tables import table, title
from nemolaunch.observe.words import three_digits


def evaluations(history: History, histories: list[History]) -> str:
    """Figures of the checkpoints that were evaluated, a row each."""
    if not history.evaluations:
        return ""
    names = list(dict.fromkeys(name for row in history.evaluations for name in evaluation_figures(row)))
    if not names:
        return ""
    rows = []
    for row in history.evaluations:
        found = evaluation_figures(row)
        cells = [f"{found[name]:.4f}" if name in found else "–" for name in names]
        rows.append((f"{row['step']:,}", *cells))
    heads = [escape(name.removeprefix("eval_").replace("_", " ")) for name in names]
    text = table(("After step", *heads), rows, num_columns=tuple(range(len(names) + 1)))
    return title("Evaluation", history, histories) + text + _conditions(history)


def _conditions(history: History) -> str:
    """Under which conditions the perplexity holds."""
    for row in reversed(history.evaluations):
        of: dict[str, Any] | None = row.get("ppl_of")
        if of:
            return (
                f"<p class='sub'>Perplexity of {escape(str(of['data']))}: {of['tokens']:,} tokens, "
                f"context length {of['context_length']}, stride {of['stride']}.</p>"
            )
    return ""


def samples(history: History, histories: list[History]) -> str:
    """What the model wrote after the same prompts, over time."""
    by_prompt: dict[str, list[tuple[str, str]]] = {}
    for row in history.evaluations:
        for sample in row.get("samples", []):
            by_prompt.setdefault(sample["prompt"], []).append((f"{row['step']:,}", escape(sample["text"])))
    text = ""
    for prompt, made in by_prompt.items():
        text += f"<p class='sub'>After “{escape(prompt)}”</p>"
        text += table(("After step", "The model wrote"), made, num_columns=(0,))
    return title("Samples", history, histories) + text if text else ""


def times(history: History, histories: list[History]) -> str:
    """Where the time went, and how even the steps were."""
    spent = details.time_spent(history)
    if not spent:
        return ""
    total = sum(seconds for _, seconds in spent) or 1.0
    rows = [(label, f"{three_digits(seconds)} s", f"{seconds / total:.1%}") for label, seconds in spent]
    text = title("Where the time went", history, histories) + table(
        ("", "Time", "Share"), rows, num_columns=(1, 2)
    )
    even = [(label, f"{three_digits(seconds)} s") for label, seconds in details.step_times(history)]
    return text + title("Step time", history, histories) + table((), even, num_columns=(1,))


def data(history: History, histories: list[History]) -> str:
    """The data mixture: asked for and seen."""
    found = details.mixture(history)
    if not found:
        return ""
    rows = [
        (
            escape(part.prefix),
            "by size" if part.asked is None else f"{part.asked:.2%}",
            "–" if part.samples is None else f"{part.samples:,}",
            "–" if part.achieved is None else f"{part.achieved:.2%}",
        )
        for part in found
    ]
    heads = ("Prefix", "Share asked for", "Samples seen", "Share seen")
    return title("Data", history, histories) + table(heads, rows, num_columns=(1, 2, 3))


def findings(history: History, histories: list[History]) -> str:
    """What the check said before the start."""
    found = details.findings(history)
    if not found:
        return ""
    items = "".join(f"<li>{escape(finding)}</li>" for finding in found)
    return title("Findings of the check", history, histories) + f"<ul>{items}</ul>"


def environment(history: History, histories: list[History]) -> str:
    """Versions and hardware."""
    if not history.environment:
        return ""
    rows = [(escape(str(name)), escape(str(value))) for name, value in history.environment.items()]
    return title("Environment", history, histories) + table((), rows)
